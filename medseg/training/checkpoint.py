"""Checkpoints: every tensor in one safetensors file, the rest as JSON in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medseg.errors import DataError
from medseg.imaging.emit import emit


def save_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write weights, averaged weights, optimiser and `state` (JSON) in one verified file."""
    tensors = _prefixed("network", network.state_dict()) | _prefixed("average", average.state_dict())
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= _prefixed(f"optimiser.{index}", slots)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"state": json.dumps(state)}
    emit(path, lambda temporary: save_file(tensors, temporary, metadata), _check)


def load_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote; returns its `state`.

    Raises:
        DataError: the checkpoint belongs to another network.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        state: dict[str, Any] = json.loads(file.metadata()["state"])
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


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def _check(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            file.get_slice(name).get_shape()
