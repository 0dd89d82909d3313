"""LogitBlock: a part of a network's output that is finished, so that labels can be decided there.

The seam between inference, which makes blocks while its window moves, and the way back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from medseg.imaging.volume import Array


@dataclass(frozen=True)
class LogitBlock:
    """Logits of a box of the model's grid, and which cells of the grid are its to decide.

    Cell n of an axis reaches from voxel n to voxel n + 1: points in it are interpolated between
    these two. The blocks of a scan own each cell once; where a block owns a cell, it holds both voxels.

    Attributes:
        logits: float32 [C, i, j, k].
        start: grid index of its first voxel.
        cells: owned cells, in grid indices.
    """

    logits: Array
    start: tuple[int, int, int]
    cells: tuple[slice, slice, slice]

    @property
    def place(self) -> tuple[slice, ...]:
        """Where its voxels lie in the grid."""
        return tuple(slice(at, at + size) for at, size in zip(self.start, self.logits.shape[1:], strict=True))


def whole(logits: Array) -> LogitBlock:
    """All logits of a scan as one block."""
    i, j, k = (slice(0, size) for size in logits.shape[1:])
    return LogitBlock(logits, (0, 0, 0), (i, j, k))


def label_grid(blocks: Iterable[LogitBlock], shape: tuple[int, ...]) -> Array:
    """The label with the largest logit at every voxel of the model's grid; uint8, at most 256 classes."""
    labels = np.zeros(shape, dtype=np.uint8)
    for block in blocks:
        labels[block.place] = block.logits.argmax(axis=0)
    return labels
