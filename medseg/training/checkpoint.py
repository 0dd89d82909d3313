"""Checkpoints: every tensor in one safetensors file, the rest as JSON in its header.

Nothing in them depends on the clock or the machine: a run that was killed and went on leaves the same bytes as one
that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from medseg.errors import DataError
from medseg.models.tensors import bytes_of, emit_tensors

LAST, PREVIOUS = "last.safetensors", "previous.safetensors"


@dataclass(frozen=True)
class Learner:
    """What learns: network, its average (None where none is kept) and optimiser."""

    network: nn.Module
    average: nn.Module | None
    optimiser: torch.optim.Optimizer


def save_checkpoint(path: Path, learner: Learner, state: dict[str, Any]) -> None:
    """Write weights, averaged weights, optimiser and `state` (JSON) in one verified file.

    The file that stood there stays as `previous.safetensors`.

    Raises:
        OutputError: it could not be written; the old file is untouched.
    """
    tensors = _prefixed("network", learner.network.state_dict())
    if learner.average is not None:
        tensors |= _prefixed("average", learner.average.state_dict())
    for index, slots in learner.optimiser.state_dict()["state"].items():
        tensors |= _prefixed(f"optimiser.{index}", slots)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    sealed = json.dumps({"sha256": _digest(tensors), "state": state})
    emit_tensors(path, tensors, {"checkpoint": sealed}, keep=path.with_name(PREVIOUS))


def load_checkpoint(
    path: Path, learner: Learner, check: Callable[[dict[str, Any]], None] = lambda state: None
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote; returns its `state`, which `check` sees before anything is touched.

    Raises:
        DataError: the file is damaged or no checkpoint, or belongs to another network.
    """
    tensors, state = read_checkpoint(path)
    check(state)
    try:
        learner.network.load_state_dict(_under("network", tensors))
        if learner.average is not None:
            learner.average.load_state_dict(_under("average", tensors))
    except RuntimeError as error:
        raise DataError(f"{path} belongs to another network.", advice="Choose another run folder.") from error
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimiser", tensors).items():
        index, key = name.split(".", 1)
        slots.setdefault(int(index), {})[key] = tensor
    learner.optimiser.load_state_dict({"state": slots, "param_groups": learner.optimiser.state_dict()["param_groups"]})
    return state


def find_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run that can be read; None where there is none at all.

    Raises:
        DataError: there are some, and all are damaged.
    """
    found = [path for path in (folder / LAST, folder / PREVIOUS) if path.is_file()]
    for path in found:
        with suppress(DataError):
            read_checkpoint(path)
            return path
    if found:
        read_checkpoint(found[0])
    return None


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint file.

    Raises:
        DataError: it is damaged or none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            sealed = json.loads((file.metadata() or {})["checkpoint"])
        if sealed["sha256"] != _digest(tensors):
            raise KeyError("sha256")
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DataError(
            f"{path} is damaged or no checkpoint.", advice="Delete it, or choose another folder."
        ) from error
    return tensors, sealed["state"]


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(bytes_of(tensors[name]).numpy().data)
    return digest.hexdigest()


def _prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}
