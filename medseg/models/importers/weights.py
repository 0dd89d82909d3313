"""PyTorch checkpoints, read without running what they hold.

A checkpoint is a pickle, and a pickle can name any function to be called. torch's restricted reader takes
tensors and plain containers; NumPy scalars, which nnU-Net stores among its training log, are allowed by name.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg.errors import ModelImportError

_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
_ALLOWED: list[Any] = [
    np.dtype,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as NumPy 1 wrote it
    (_SCALAR, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "uint8", "float16", "float32", "float64")),
]
_ADVICE = "Ask the authors for a plain state dict (tensors only)."


def read_checkpoint(path: Path) -> Any:
    """What a .pth or .pt file holds, on the CPU.

    Raises:
        ModelImportError: missing, damaged, or a pickle that would call something else than NumPy's scalars.
    """
    if not path.is_file():
        raise ModelImportError(path, "is missing.", advice="Copy the whole model folder, weights included.")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile pickle may raise anything
        raise ModelImportError(path, _reason(path, error), advice=_ADVICE) from None


def _reason(path: Path, error: Exception) -> str:
    named = _unsafe(path)
    if named:
        return f"holds code or objects that are not weights ({', '.join(named)}); it was refused and nothing was run."
    if "TorchScript" in str(error):
        return "is TorchScript, which is a program and not only weights; it was refused and nothing was run."
    return f"is damaged or no PyTorch checkpoint ({type(error).__name__})."


def _unsafe(path: Path) -> list[str]:
    """Names in the pickle that are not allowed; read from its bytes, not resolved."""
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # old or damaged files cannot be listed
        return []


def pick_tensors(content: Any, path: Path, keys: tuple[str, ...]) -> dict[str, Tensor]:
    """The state dict in a checkpoint: under one of `keys`, or the checkpoint itself.

    Raises:
        ModelImportError: nothing in it is a state dict.
    """
    places = [content.get(key) for key in keys] if isinstance(content, Mapping) else []
    for place in (*places, content):
        if isinstance(place, Mapping) and place and all(isinstance(value, Tensor) for value in place.values()):
            return {str(name): tensor for name, tensor in place.items()}
    raise ModelImportError(path, f"holds no state dict, alone or as {', '.join(keys)}.", advice=_ADVICE)


def without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what data-parallel and compiled modules put before them."""
    out = {}
    for name, tensor in weights.items():
        for prefix in ("module.", "_orig_mod."):
            name = name.removeprefix(prefix)
        out[name] = tensor
    return out
