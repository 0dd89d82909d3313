"""Sliding windows whose logits are finished slice by slice while the window moves.

Windows are visited from the scan's lower end to its upper one. Only the slices that a window still
reaches are held as sums; slices that no later window reaches leave as a `LogitBlock`. Memory
is classes x plane x window, whatever the length of the scan; where that is too much, the plane
is cut into columns, and windows across a cut are computed for both sides. The blend is that of
MONAI's `sliding_window_inference` or of nnU-Net (Gaussian weights, sigma 1/8 of the window; what
differs is the least of them), or constant, which is MONAI's default. While the network computes,
another thread cuts what it gets next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from medseg.imaging.volume import Array
from medseg.inference.windows import AIR, Start, Windows, cut
from medseg.preprocess.blocks import LogitBlock

T = TypeVar("T")

Predict = Callable[[Tensor], Tensor]
Skip = Callable[[Array], bool]
# Windows [B, channels, *window], their logits [B, C, *window] and shares of the blend [B, *window] -> better logits.
Refine = Callable[[Tensor, Tensor, Tensor], Tensor]
CERTAIN = 10.0  # logit of background where nothing but air is
BLOCK_VALUES = 8_000_000  # floats of one block: more are handed over in several


@dataclass(frozen=True)
class Column:
    """Cells of the plane that one pass over the scan decides, and the voxels that it needs for them."""

    i: slice
    j: slice

    def voxels(self, shape: Sequence[int]) -> tuple[slice, slice]:
        return slice(self.i.start, min(self.i.stop + 1, shape[0])), slice(self.j.start, min(self.j.stop + 1, shape[1]))


def columns(shape: Sequence[int], parts: tuple[int, int] = (1, 1)) -> list[Column]:
    """The plane of `shape`, cut into `parts` along i and j."""
    edges = [np.linspace(0, n, min(count, n) + 1).astype(int) for n, count in zip(shape[:2], parts, strict=True)]
    rows, cols = ([slice(int(a), int(b)) for a, b in pairwise(e)] for e in edges)
    return [Column(i, j) for i in rows for j in cols]


def count_visits(windows: Windows, shape: Sequence[int], cuts: Sequence[Column]) -> int:
    """How many windows are computed, those across cuts counted for each side."""
    return sum(len(windows.layer(k, *column.voxels(shape))) for column in cuts for k in windows.starts[2])


@dataclass(frozen=True)
class _Step:
    """Windows that go through the network together.

    Attributes:
        starts, tiles: their places and their images [channels, *window]; none where only air was seen.
        visited: how many windows this step looked at.
        until: slices of the column that no later window reaches; None within a layer.
    """

    starts: list[Start]
    tiles: list[Array]
    visited: int
    until: int | None = None


def stream_logits(
    predictor: Predict,
    image: Array,
    windows: Windows,
    *,
    cuts: Sequence[Column] | None = None,
    skip: Skip = lambda _: False,
    refine: Refine | None = None,
    air: float = AIR,
    batch: int = 1,
    on_window: Callable[[float], None] = lambda _: None,
) -> Iterator[LogitBlock]:
    """Blocks of logits that together own every cell of `image`.

    Args:
        predictor: [B, channels, *window] float32 -> [B, C, *window].
        image: scan [channels, i, j, k] of any number type; the predictor gets float32.
        windows: their size and places.
        cuts: columns of the plane; None is the whole plane at once.
        skip: says of a window's image that it needs no network. Where no window was computed lies background.
        refine: gets the windows, their logits and how much each voxel will count in the blend; returns what counts.
        air: value beyond the image.
        batch: how many windows of a layer the predictor gets at a time, at most.
        on_window: gets the share that is done after each step and may raise to cancel.
    """
    shape = image.shape[1:]
    cuts = columns(shape) if cuts is None else cuts
    total, done = count_visits(windows, shape, cuts), 0
    weights = windows.weights()
    for column in cuts:
        area = column.voxels(shape)
        sums = _Sums(column, area, shape, windows.size)
        for step in _ahead(_steps(image, windows, area, skip, air, batch)):
            if step.tiles:
                _compute(step, sums, predictor, refine, windows, weights)
            done += step.visited
            on_window(done / total)
            if step.until is not None:
                yield from sums.release(step.until)


def _compute(
    step: _Step, sums: _Sums, predictor: Predict, refine: Refine | None, windows: Windows, weights: Tensor
) -> None:
    """A step's windows through the network and into the sums; their logits are gone before the next ones come.

    A GPU that another program has filled meanwhile gets them in smaller portions.
    """
    logits = _logits(step, predictor, refine, windows)
    if logits is None:
        half = len(step.tiles) // 2
        for part in (slice(half), slice(half, None)):
            portion = replace(step, starts=step.starts[part], tiles=step.tiles[part])
            _compute(portion, sums, predictor, refine, windows, weights)
        return
    for out, start in zip(logits, step.starts, strict=True):
        sums.add(out, weights, start)


def _logits(step: _Step, predictor: Predict, refine: Refine | None, windows: Windows) -> Tensor | None:
    """None where they are too many for the GPU's memory."""
    try:
        tiles = torch.from_numpy(np.stack(step.tiles))
        logits = predictor(tiles)
        if refine is None:
            return logits
        return refine(tiles, logits, torch.stack([windows.shares(start) for start in step.starts]))
    except torch.OutOfMemoryError:
        if len(step.tiles) == 1:
            raise
        return None


def _steps(
    image: Array, windows: Windows, area: tuple[slice, slice], skip: Skip, air: float, batch: int
) -> Iterator[_Step]:
    """The windows over `area`, layer by layer from below."""
    ends = [*windows.starts[2][1:], image.shape[3]]
    for k, until in zip(windows.starts[2], ends, strict=True):
        step = _Step([], [], 0)
        for start in windows.layer(k, *area):
            if len(step.tiles) == batch:
                yield step
                step = _Step([], [], 0)
            step = _with_window(step, start, cut(image, start, windows.size, air), skip)
        yield replace(step, until=until)


def _with_window(step: _Step, start: Start, tile: Array, skip: Skip) -> _Step:
    if skip(tile):
        return replace(step, visited=step.visited + 1)
    return _Step([*step.starts, start], [*step.tiles, tile], step.visited + 1)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by another thread while the one before is in use."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="medseg-ahead") as pool:
        following = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item  # type: ignore[misc]


class _Sums:
    """Weighted sums of the slices that windows still reach, in one column of the plane."""

    def __init__(self, column: Column, area: tuple[slice, slice], shape: Sequence[int], size: Start) -> None:
        self.column, self.area, self.length = column, area, shape[2]
        self.plane = tuple(side.stop - side.start for side in area)
        self.depth = min(size[2], self.length)
        self.low = 0  # slice of the scan that comes first here
        self.weights = torch.zeros((*self.plane, self.depth))
        self.sums: Tensor | None = None
        self.last: Array | None = None  # the slice below `low`, finished

    def add(self, out: Tensor, weights: Tensor, start: Start) -> None:
        """Add a window's logits [C, *window] where they lie in this column."""
        lows = (self.area[0].start, self.area[1].start, self.low)
        inside = (*self.plane, self.depth)
        here, there = [], []
        for at, side, low, n in zip(start, weights.shape, lows, inside, strict=True):
            a, b = max(at, low), min(at + side, low + n)
            here.append(slice(a - low, b - low))
            there.append(slice(a - at, b - at))
        if self.sums is None:
            self.sums = torch.zeros((len(out), *inside))
        share = weights[tuple(there)]
        self.sums[(slice(None), *here)].addcmul_(out[(slice(None), *there)].detach().float(), share)
        self.weights[tuple(here)] += share

    def release(self, until: int) -> Iterator[LogitBlock]:
        """Finished slices below `until` as blocks; what remains moves to the front."""
        count = until - self.low
        channels = 1 if self.sums is None else len(self.sums)
        step = max(1, BLOCK_VALUES // (channels * self.plane[0] * self.plane[1]))
        for first in range(0, count, step):
            planes = slice(first, min(first + step, count))
            yield self._block(self._finished(planes), self.low + planes.start, self.low + planes.stop)
        if until < self.length:
            # One channel after the other, so that what is carried on is never held twice as a whole.
            for part in (self.weights, *([] if self.sums is None else self.sums)):
                part[..., : self.depth - count] = part[..., count:].clone()
                part[..., self.depth - count :] = 0
        self.low = until

    def _finished(self, planes: slice) -> Array:
        weights = self.weights[..., planes]
        if self.sums is None:
            return np.full((1, *weights.shape), CERTAIN, dtype=np.float32)
        logits = self.sums[..., planes] / weights.clamp(min=1e-12)
        logits[0][weights == 0] = CERTAIN
        return logits.numpy()

    def _block(self, logits: Array, low: int, high: int) -> LogitBlock:
        start = low
        if self.last is not None:
            logits, start = np.concatenate([_like(self.last, logits), logits], axis=3), low - 1
        self.last = logits[..., -1:].copy()
        cells = slice(start, high if high == self.length else high - 1)
        return LogitBlock(
            logits, (self.area[0].start, self.area[1].start, start), (self.column.i, self.column.j, cells)
        )


def _like(plane: Array, logits: Array) -> Array:
    """A slice from before the first window was computed, with the channels that the network turned out to have."""
    if len(plane) == len(logits):
        return plane
    return np.concatenate([plane, np.zeros((len(logits) - 1, *plane.shape[1:]), plane.dtype)])
