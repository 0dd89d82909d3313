"""Which network, patch and batch fit the device: the first rung of a ladder whose step has room in its memory.

A GPU begins at the specification's width of 64 and 128^3 voxels. A CPU begins where two cores take about a step a
second: there time ends before memory does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from medseg.errors import ConfigError
from medseg.runtime.room import free_mb
from medseg.training.footprint import Footprint, footprint
from medseg.training.loop import Precision
from medseg.training.precision import fastest

NETWORK = "Optimized3DUNet"
MB = 2**20
MAX_EDGE = 192
USABLE = 0.8  # share of the memory that is planned with: the rest is the allocator's, the kernels' and other programs'
PROGRAM_MB = 700  # of a process with PyTorch and MONAI that prepares or trains, before its first step


@dataclass(frozen=True)
class Rung:
    """Channels per level, voxels of a patch, patches at a time, and how many times that make one optimiser step."""

    channels: tuple[int, ...]
    patch_voxels: int
    batch: int
    aggregated: int = 1


_CPU_CHANNELS = (16, 32, 64, 128, 192)
GPU_RUNGS = (
    Rung((64, 128, 256, 512, 512, 512), 128**3, 2),
    Rung((32, 64, 128, 256, 320, 320), 128**3, 2),
    Rung((32, 64, 128, 256, 320), 96**3, 2),
)
CPU_RUNGS = (
    Rung(_CPU_CHANNELS, 64**3, 2),
    Rung(_CPU_CHANNELS, 64**3, 1, 2),
    Rung(_CPU_CHANNELS, 48**3, 1, 2),
    Rung((8, 16, 32, 64, 96), 48**3, 1, 2),
    Rung((8, 16, 32, 64), 32**3, 1, 2),
)


@dataclass(frozen=True)
class Room:
    """The device that is planned for.

    Attributes:
        device: 'cpu' or 'cuda'.
        memory_mb: that a training may take there.
        workers: processes that prepare patches; on a CPU they live in the same memory.
    """

    device: str
    memory_mb: float
    workers: int = 1

    @classmethod
    def here(cls, memory_mb: float | None = None) -> Room:
        """This computer's: its first GPU, or its own memory as far as it is free; `memory_mb` in place of that."""
        if torch.cuda.is_available():
            return cls("cuda", memory_mb or torch.cuda.get_device_properties(0).total_memory / MB)
        return cls("cpu", memory_mb or free_mb())

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """From the largest to the smallest."""
        return (*GPU_RUNGS, *CPU_RUNGS) if self.device == "cuda" else CPU_RUNGS

    @property
    def precision(self) -> Precision:
        """The one that `auto` takes there."""
        return fastest(torch.device(self.device))

    @property
    def where(self) -> str:
        """In words."""
        return "the GPU" if self.device == "cuda" else "this computer"

    @property
    def programs_mb(self) -> float:
        """What the processes take in that memory before the first step."""
        return 0.0 if self.device == "cuda" else PROGRAM_MB * (1 + self.workers)


@dataclass(frozen=True)
class Fit:
    """What fits.

    Attributes:
        channels: per level.
        patch: voxels along the axes; divides by the levels.
        batch, aggregated: patches at a time, and times that make an optimiser step.
        memory_mb: that the training is expected to take.
    """

    channels: tuple[int, ...]
    patch: tuple[int, ...]
    batch: int
    aggregated: int
    memory_mb: float

    @property
    def options(self) -> dict[str, Any]:
        """Of the network's builder."""
        return _options(self.channels)


def fit(shape: Sequence[float], classes: int, room: Room) -> Fit:
    """The largest rung whose training has room.

    Args:
        shape: of the median scan on the training grid, voxels.
        classes: background included.
        room: where it will train.

    Raises:
        ConfigError: not even the smallest fits; says what it takes.
    """
    for rung in room.rungs:
        found = _fitted(rung, shape, classes, room)
        if found.memory_mb <= USABLE * room.memory_mb:
            return found
    raise ConfigError(
        f"The smallest training takes about {found.memory_mb:,.0f} MB; "
        f"{USABLE:.0%} of {room.memory_mb:,.0f} MB may be used.",
        advice="Train on a computer with more memory, or on fewer organs.",
    )


def _fitted(rung: Rung, shape: Sequence[float], classes: int, room: Room) -> Fit:
    patch, levels = _patch(shape, rung)
    channels = rung.channels[:levels]
    step = _weighed(channels, classes, room.precision)
    return Fit(channels, patch, rung.batch, rung.aggregated, step.bytes(patch, rung.batch) / MB + room.programs_mb)


@cache
def _weighed(channels: tuple[int, ...], classes: int, precision: Precision) -> Footprint:
    return footprint(NETWORK, _options(channels), classes, precision)


def _options(channels: tuple[int, ...]) -> dict[str, Any]:
    return {"channels": list(channels), "deep_supervision": min(2, len(channels) - 1)}


def _patch(shape: Sequence[float], rung: Rung) -> tuple[tuple[int, ...], int]:
    """Sizes in the scan's proportions, at most the rung's voxels, as many levels as leave four voxels below."""
    shrink = min(1.0, (rung.patch_voxels / math.prod(shape)) ** (1 / 3))
    wanted = [max(8.0, min(size * max(shrink, 0.1), MAX_EDGE)) for size in shape]
    levels = min(len(rung.channels), int(math.log2(min(wanted) / 4)) + 1)
    unit = 2 ** (levels - 1)
    return tuple(max(unit, unit * round(size / unit)) for size in wanted), levels
