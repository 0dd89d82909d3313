"""Tensors as safetensors files: complete and verified, or not there at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medseg.errors import OutputError
from medseg.imaging.emit import emit


def emit_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None, keep: Path | None = None
) -> Path:
    """Write tensors as safetensors, complete and verified, or not at all.

    Args:
        path: where the file is to appear.
        tensors: contiguous, by name.
        metadata: strings for the header.
        keep: name under which the file that stood at `path` stays.

    Raises:
        OutputError: it could not be written completely; `path` is as it was before.
    """

    def write(temporary: Path) -> None:
        try:
            save_file(dict(tensors), temporary, metadata)
        except SafetensorError as error:  # no OSError, even where the disk is full
            raise OutputError(f"{path} could not be written: {error}.") from error

    def check(temporary: Path) -> None:
        _check(path, temporary, tensors)
        if keep is not None and path.is_file():
            _keep(path, keep)

    return emit(path, write, check)


def _keep(path: Path, keep: Path) -> None:
    """A second name for the old file: `path` is there at every moment."""
    name = keep.with_name(f".part-{keep.name}")
    with suppress(OSError):  # a file system without hard links keeps one checkpoint instead of two
        name.unlink(missing_ok=True)
        os.link(path, name)
        os.replace(name, keep)


def _check(path: Path, temporary: Path, tensors: Mapping[str, Tensor]) -> None:
    with safe_open(temporary, framework="pt") as file:
        for name, wanted in tensors.items():
            # Compared as bytes: a NaN equals itself, and nothing is rounded.
            if not torch.equal(bytes_of(file.get_tensor(name)), bytes_of(wanted)):
                raise OutputError(f"{path}: {name} read back differently from what was written.")


def bytes_of(tensor: Tensor) -> Tensor:
    """The tensor's bytes, uint8 [n]."""
    return tensor.reshape(-1).view(torch.uint8)
