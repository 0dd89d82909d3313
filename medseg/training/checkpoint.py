"""Checkpoints: every tensor in one safetensors file, the rest as JSON in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medseg.errors import DataError, OutputError
from medseg.imaging.emit import emit


def save_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write weights, averaged weights, optimiser and `state` (JSON) in one verified file."""
    tensors = _prefixed("network", network.state_dict()) | _prefixed("average", average.state_dict())
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= _prefixed(f"optimiser.{index}", slots)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    emit_tensors(path, tensors, {"state": json.dumps(state)})


def load_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote; returns its `state`.

    Raises:
        DataError: the file is damaged or no checkpoint, or belongs to another network.
    """
    tensors, state = _read(path)
    try:
        network.load_state_dict(_under("network", tensors))
        average.load_state_dict(_under("average", tensors))
    except RuntimeError as error:
        raise DataError(f"{path} belongs to another network.", advice="Choose another run folder.") from error
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimiser", tensors).items():
        index, key = name.split(".", 1)
        slots.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
    return state


def emit_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write tensors as safetensors, complete and verified, or not at all.

    Raises:
        OutputError: it could not be written completely; `path` is as it was before.
    """

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # no OSError, even where the disk is full
            raise OutputError(f"{path} could not be written: {error}.") from error

    return emit(path, write, lambda temporary: _check(path, temporary, tensors))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return tensors, json.loads((file.metadata() or {})["state"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DataError(
            f"{path} is damaged or no checkpoint.", advice="Delete it, or choose another folder."
        ) from error


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def _check(path: Path, temporary: Path, tensors: dict[str, Tensor]) -> None:
    with safe_open(temporary, framework="pt") as file:
        for name, wanted in tensors.items():
            # Compared as bytes: a NaN equals itself, and nothing is rounded.
            if not torch.equal(_bytes(file.get_tensor(name)), _bytes(wanted)):
                raise OutputError(f"{path}: {name} read back differently from what was written.")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)
