"""Sliding windows whose logits are finished slice by slice while the window moves.

Windows are visited from the scan's lower end to its upper one. Only the slices that a window still
reaches are held as sums; slices that no later window reaches leave as a `LogitBlock`. Memory
is classes x plane x window, whatever the length of the scan; where that is too much, the plane
is cut into columns, and windows across a cut are computed for both sides. The blend is that of
MONAI's `sliding_window_inference` (Gaussian weights, sigma 1/8 of the window).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from torch import Tensor

from medseg.imaging.volume import Array
from medseg.inference.windows import AIR, Start, Windows, cut
from medseg.preprocess.blocks import LogitBlock

Predict = Callable[[Tensor], Tensor]
Skip = Callable[[Array], bool]
CERTAIN = 10.0  # logit of background where nothing but air is
BLOCK_VALUES = 16_000_000  # floats of one block: more are handed over in several


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


def stream_logits(
    predictor: Predict,
    image: Array,
    windows: Windows,
    *,
    cuts: Sequence[Column] | None = None,
    skip: Skip = lambda _: False,
    air: float = AIR,
    on_window: Callable[[float], None] = lambda _: None,
) -> Iterator[LogitBlock]:
    """Blocks of logits that together own every cell of `image`.

    Args:
        predictor: [1, channels, *window] float32 -> [1, C, *window].
        image: scan [channels, i, j, k] of any number type; the predictor gets float32.
        windows: their size and places.
        cuts: columns of the plane; None is the whole plane at once.
        skip: says of a window's image that it needs no network. Where no window was computed lies background.
        air: value beyond the image.
        on_window: gets the share that is done after each window and may raise to cancel.
    """
    shape = image.shape[1:]
    cuts = columns(shape) if cuts is None else cuts
    total, done = count_visits(windows, shape, cuts), 0
    weights = compute_importance_map(windows.size, mode="gaussian", sigma_scale=0.125, dtype=torch.float32)
    weights = weights.clamp(min=max(float(weights.min()), 1e-3))
    for column in cuts:
        area = column.voxels(shape)
        sums = _Sums(column, area, shape, windows.size)
        for n, k in enumerate(windows.starts[2]):
            for start in windows.layer(k, *area):
                tile = cut(image, start, windows.size, air)
                if not skip(tile):
                    sums.add(predictor(torch.from_numpy(tile)[None])[0], weights, start)
                done += 1
                on_window(done / total)
            following = windows.starts[2][n + 1 : n + 2]
            yield from sums.release(following[0] if following else shape[2])


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
        for tensor in (self.sums, self.weights):
            if tensor is not None and until < self.length:
                tensor[..., : self.depth - count] = tensor[..., count:].clone()
                tensor[..., self.depth - count :] = 0
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
