"""Logits on the model's grid -> labels on the input's grid.

The logits are interpolated linearly to the input's grid before the label is decided, so
that organs have smooth outlines on slices thinner than the model's. It happens block by
block as the network finishes them, and only in the boxes that hold organs: memory does not
grow with classes x scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array, Geometry, restore_orientation
from medseg.preprocess.blocks import LogitBlock, whole

SLAB_VALUES = 2_000_000  # interpolated logits held at a time
_TRACE = 5.3  # logits below background at which an organ's probability rounds to 0 per cent
_REACH = 0.51  # model voxels beyond the outermost centres that still belong to the grid
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class LabelMap:
    """Labels on a grid.

    Attributes:
        labels: uint8, 0 is background.
        confidence: uint8, the probability of the decided label in 1/255; 0 where background.
        geometry: the grid of all.
        probabilities: by label value, uint8 in per cent, of those that were asked for; as the network gives them,
            before anything is cleaned.
    """

    labels: Array
    confidence: Array
    geometry: Geometry
    probabilities: Mapping[int, Array] = field(default_factory=dict)


def restore(logits: Array, grid: Geometry, source: Geometry) -> LabelMap:
    """Decide labels on `source` from `logits` (float32 [C, i, j, k]) on `grid`, all at once."""
    return restore_blocks([whole(logits)], grid, source)


def restore_blocks(
    blocks: Iterable[LogitBlock], grid: Geometry, source: Geometry, wanted: Sequence[int] = ()
) -> LabelMap:
    """Decide labels on `source` from blocks of logits on `grid`, each as it comes.

    `grid` is any grid made by `prepare` from `source`; the result is indexed as `source`. Cells of the grid
    that no block owns are background. `wanted` are the label values whose probabilities are kept.
    """
    canonical = source.canonical()
    labels = np.zeros(canonical.shape, dtype=np.uint8)
    confidence = np.zeros(canonical.shape, dtype=np.uint8)
    percent = {value: np.zeros(canonical.shape, dtype=np.uint8) for value in wanted}
    # Rounded, so that a tie between two labels falls alike in every orientation of a file.
    to_grid = np.round(np.linalg.inv(grid.affine) @ canonical.affine, 9)
    turn = to_grid[:3, :3]
    parallel = np.abs(turn - np.diag(np.diag(turn))).max() < 1e-6
    way = (_Parallel if parallel else _Turned)(to_grid, canonical.shape, grid.shape)
    for block in blocks:
        cells = _organ_cells(block, _TRACE if percent else 0.0)
        if cells is None:
            continue
        for slab, logits, mine in way.sample(block, cells):
            label, sure = decide(logits)
            labels[slab] = np.where(mine, label, labels[slab])
            confidence[slab] = np.where(mine, sure, confidence[slab])
            for value, shares in _percent(logits, percent):
                percent[value][slab] = np.where(mine, shares, percent[value][slab])

    def back(array: Array) -> Array:
        return np.ascontiguousarray(restore_orientation(array, source.to_canonical))

    # Each map is let go as it is turned: two of all of them would not be in the forecast.
    maps = {value: back(percent.pop(value)) for value in wanted}
    return LabelMap(back(labels), back(confidence), source, maps)


def decide(logits: Array) -> tuple[Array, Array]:
    """Logits [C, ...] -> (label uint8, its softmax probability in 1/255 or 0 for background)."""
    label = logits.argmax(axis=0).astype(np.uint8)
    best = logits.max(axis=0)
    probability = 1.0 / np.exp(logits - best).sum(axis=0)
    return label, np.where(label > 0, np.round(probability * 255), 0).astype(np.uint8)


def _percent(logits: Array, values: Iterable[int]) -> Iterator[tuple[int, Array]]:
    """Softmax probability of some channels of [C, ...], uint8 in per cent."""
    for value in values:
        odds = np.exp(np.clip(logits - logits[value], None, 80.0)).sum(axis=0)
        yield value, np.round(100.0 / odds).astype(np.uint8)


def _organ_cells(block: LogitBlock, reach: float) -> Box | None:
    """The owned cells with an organ at one of their voxels at least; between background lies background.

    An organ counts as far as it comes within `reach` logits of background.
    """
    if len(block.logits) < 2:
        return None
    found = block.logits[1:].max(axis=0) > block.logits[0] - reach
    if not found.any():
        return None
    sides = []
    for axis, (start, owned) in enumerate(zip(block.start, block.cells, strict=True)):
        where = np.flatnonzero(found.any(axis=tuple(a for a in range(3) if a != axis))) + start
        low, high = max(owned.start, int(where[0]) - 1), min(owned.stop, int(where[-1]) + 1)
        sides.append(slice(low, high))
    return sides[0], sides[1], sides[2]


def _cell(position: Array, size: int) -> Array:
    """The cell in which grid positions lie; -1 and `size` beyond the grid's ends."""
    cell = np.floor(np.maximum(position, 0)).astype(int)
    return np.where(position < -_REACH, -1, np.where(position > size - 1 + _REACH, size, cell))


def _slabs(low: Iterable[int], high: Iterable[int], values: int) -> Iterator[Box]:
    """The box from `low` to `high` in slabs of `values` voxels: cut along k, and along j where a slice is too large."""
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    row, columns = i.stop - i.start, j.stop - j.start
    if row <= 0 or columns <= 0:
        return
    wide = min(columns, max(1, values // row))
    deep = max(1, values // (row * wide))
    for start, first in product(range(k.start, k.stop, deep), range(j.start, j.stop, wide)):
        yield i, slice(first, min(first + wide, j.stop)), slice(start, min(start + deep, k.stop))


class _Parallel:
    """Source and grid have the same axes: each is interpolated by itself, one matrix product an axis."""

    def __init__(self, to_grid: Array, source: tuple[int, ...], grid: tuple[int, ...]) -> None:
        along = [to_grid[axis, axis] * np.arange(size) + to_grid[axis, 3] for axis, size in enumerate(source)]
        self.cells = [_cell(positions, size) for positions, size in zip(along, grid, strict=True)]
        self.positions = along

    def sample(self, block: LogitBlock, cells: Box) -> Iterator[tuple[Box, Array, Array]]:
        """Source slabs in `cells`, their logits, and which of their voxels these are (all)."""
        ends = [np.searchsorted(own, (side.start, side.stop)) for own, side in zip(self.cells, cells, strict=True)]
        low, high = zip(*ends, strict=True)
        for slab in _slabs(low, high, SLAB_VALUES // len(block.logits)):
            out = block.logits
            ways = [self._along(axis, size, block.start[axis], slab[axis]) for axis, size in enumerate(out.shape[1:])]
            out = out[(slice(None), *(used for _, used in ways))]  # a view, and no more than the slab needs
            for axis in (2, 1, 0):
                weights = ways[axis][0]
                if weights is not None:
                    out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis + 1)), 0, axis + 1)
            yield slab, out, np.ones(1, dtype=bool)

    def _along(self, axis: int, size: int, start: int, side: slice) -> tuple[Array | None, slice]:
        """Weights [voxels of the slab, voxels of the block that they need], and which these are.

        None where the grids' voxels coincide: nothing to interpolate.
        """
        first = start + np.arange(size)
        at = np.clip(self.positions[axis][side], first[0], first[-1])
        weights = np.maximum(0.0, 1.0 - np.abs(first - at[:, None])).astype(np.float32)
        nonzero = np.flatnonzero(weights.any(axis=0))
        used = slice(int(nonzero[0]), int(nonzero[-1]) + 1)
        return None if np.array_equal(at, first[used]) else weights[:, used], used


class _Turned:
    """The scan lies turned in the grid: a block owns those voxels of a source box that fall into its cells."""

    def __init__(self, to_grid: Array, source: tuple[int, ...], grid: tuple[int, ...]) -> None:
        self.to_grid, self.source, self.grid = to_grid, source, grid
        self.back = np.linalg.inv(to_grid)

    def sample(self, block: LogitBlock, cells: Box) -> Iterator[tuple[Box, Array, Array]]:
        """Source slabs around `cells`, their logits, and which of their voxels lie in `cells`."""
        low, high = self._around(cells)
        for slab in _slabs(low, high, SLAB_VALUES // len(block.logits)):
            at = self._positions(slab)
            mine = np.ones(at.shape[1:], dtype=bool)
            for position, size, side in zip(at, self.grid, cells, strict=True):
                cell = _cell(position, size)
                mine &= (cell >= side.start) & (cell < side.stop)
            if mine.any():
                yield slab, self._interpolate(block, at), mine

    def _around(self, cells: Box) -> tuple[Array, Array]:
        corners = np.array(list(product(*[(side.start - _REACH, side.stop) for side in cells]))).T
        points = self.back[:3, :3] @ corners + self.back[:3, 3:]
        # Whole numbers by cutting off, and one voxel more than needed, which covers the rounding.
        low, high = points.min(axis=1), points.max(axis=1) + 2
        return np.maximum(low, 0).astype(int), np.minimum(high, self.source).astype(int)

    def _positions(self, slab: Box) -> Array:
        index = np.stack(np.meshgrid(*[np.arange(side.start, side.stop) for side in slab], indexing="ij"))
        return np.asarray(np.tensordot(self.to_grid[:3, :3], index, axes=1) + self.to_grid[:3, 3].reshape(3, 1, 1, 1))

    def _interpolate(self, block: LogitBlock, at: Array) -> Array:
        inside = at - np.array(block.start).reshape(3, 1, 1, 1)
        return np.stack([ndimage.map_coordinates(c, inside, order=1, mode="nearest") for c in block.logits])
