"""Where windows lie, and what of an image lies in one. The layout is MONAI's `dense_patch_slices`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from medseg.imaging.volume import Array
from medseg.models.card import Blend, InputSpec

AIR = -1.0  # the normalised value of air; what lies beyond the scan is air
MARGIN = 8  # voxels of air around the body that the network still sees
MONAI_FLOOR = 1e-3
# The least that a float16 holds, over nnU-Net's factor of ten: the rim of a window counts for nothing where another
# window reaches.
NNUNET_FLOOR = 6e-9
Start = tuple[int, int, int]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Windows:
    """A regular cover of an image; the last window of an axis is moved back to end with the image.

    Attributes:
        size: voxels of one window.
        starts: per axis, where windows begin; negative where the image is smaller than a window.
        floor: the least that a window's voxel counts in the blend, of 1 in its middle.
        blend: whether the middle of a window counts more than its rim, or all of it alike.
    """

    size: tuple[int, int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    floor: float = MONAI_FLOOR
    blend: Blend = "gaussian"

    @classmethod
    def over(cls, shape: Sequence[int], size: Sequence[int], overlap: float) -> Windows:
        """Windows of `size` over an image of `shape` that overlap by the share `overlap`."""
        i, j, k = (_starts(n, side, max(1, int(side * (1 - overlap)))) for n, side in zip(shape, size, strict=True))
        return cls((size[0], size[1], size[2]), (i, j, k))

    @classmethod
    def spread(cls, shape: Sequence[int], size: Sequence[int], overlap: float, towards: str) -> Windows:
        """Windows at even distances, as nnU-Net lays them; its rounding counts along `towards`, such as LPS."""
        i, j, k = (
            _spread(n, side, side * (1 - overlap), backwards=letter in "LPI")
            for n, side, letter in zip(shape, size, towards, strict=True)
        )
        return cls((size[0], size[1], size[2]), (i, j, k), NNUNET_FLOOR)

    @classmethod
    def of(cls, spec: InputSpec, shape: Sequence[int]) -> Windows:
        """Windows over `shape` as a model's card wants them; networks from nnU-Net are blended as there."""
        if spec.fitted or spec.spread is not None:
            windows = cls.spread(shape, spec.patch_size, spec.overlap_ratio, spec.spread or "RAS")
        else:
            windows = cls.over(shape, spec.patch_size, spec.overlap_ratio)
        is_nnunet = spec.spread is not None or spec.intensity.startswith("nnunet")
        return replace(windows, blend=spec.blend, floor=NNUNET_FLOOR if is_nnunet else MONAI_FLOOR)

    def __len__(self) -> int:
        return math.prod(len(axis) for axis in self.starts)

    def layer(self, k: int, i_range: slice, j_range: slice) -> list[Start]:
        """Windows that begin at slice `k` and meet the given rows and columns."""
        rows = [i for i in self.starts[0] if i < i_range.stop and i + self.size[0] > i_range.start]
        columns = [j for j in self.starts[1] if j < j_range.stop and j + self.size[1] > j_range.start]
        return [(i, j, k) for i, j in product(rows, columns)]

    def weights(self) -> Tensor:
        """How much each voxel of a window counts in the blend: float32 [*size]."""
        return torch.ones(self.size) if self.blend == "constant" else gaussian_weights(self.size, floor=self.floor)

    def shares(self, start: Start) -> Tensor:
        """How much the window at `start` counts in the blend, of 1: float32 [*size].

        Without the floor of the weights, so that they are a product of one along each axis.
        """
        bell = _flat if self.blend == "constant" else _bell
        own = [_share(at, starts, side, bell) for at, starts, side in zip(start, self.starts, self.size, strict=True)]
        return own[0][:, None, None] * own[1][:, None] * own[2]


def _share(start: int, starts: Sequence[int], side: int, bell: Callable[[int, int], Tensor]) -> Tensor:
    """The same along one axis."""
    bells = {at: bell(side, at - start) for at in starts if abs(at - start) < side}
    return bells[start] / torch.stack(list(bells.values())).sum(dim=0)


def _bell(side: int, shift: int = 0, sigma: float = 1 / 8) -> Tensor:
    """A Gaussian along a window, as one that begins `shift` earlier sees it; 0 beyond."""
    along = torch.arange(side) - shift
    bell = torch.exp((along - (side - 1) / 2) ** 2 / (-2 * (side * sigma) ** 2))
    return bell * ((along >= 0) & (along < side))


def _flat(side: int, shift: int = 0) -> Tensor:
    """As `_bell`, where all of a window counts alike."""
    along = torch.arange(side) - shift
    return ((along >= 0) & (along < side)).float()


def _starts(length: int, side: int, step: int) -> tuple[int, ...]:
    if length <= side:
        return (-((side - length) // 2),)
    count = math.ceil((length - side) / step) + 1
    return tuple(min(n * step, length - side) for n in range(count))


def _spread(length: int, side: int, step: float, *, backwards: bool) -> tuple[int, ...]:
    if length <= side:
        starts = [-((side - length) // 2)]
    else:
        count = math.ceil((length - side) / step) + 1
        starts = [round((length - side) * n / (count - 1)) for n in range(count)]
    return tuple(sorted(length - side - start for start in starts)) if backwards else tuple(starts)


def gaussian_weights(size: Sequence[int], sigma: float = 1 / 8, floor: float = MONAI_FLOOR) -> Tensor:
    """How much a window's voxels count in the blend, float32 of `size`: a Gaussian, never less than `floor`.

    With MONAI's floor it is its `compute_importance_map`, bit for bit (the tests compare them), written out because
    importing MONAI takes longer than segmenting a scan.
    """
    weights = torch.ones(())
    for side in size:
        weights = weights.unsqueeze(-1) * _bell(side, sigma=sigma)
    return weights.clamp(min=max(float(weights.min()), floor))


def cut(image: Array, start: Start, size: Start, air: float = AIR) -> Array:
    """The window [channels, *size] (float32) of `image` [channels, i, j, k] at `start`; `air` where it leaves it."""
    sides = list(zip(image.shape[1:], start, size, strict=True))
    inner = tuple(slice(max(0, at), min(n, at + side)) for n, at, side in sides)
    tile = image[(slice(None), *inner)]
    if tile.shape[1:] == tuple(size):
        return np.ascontiguousarray(tile, dtype=np.float32)
    out = np.full((len(image), *size), air, dtype=np.float32)
    out[(slice(None), *(slice(s.start - at, s.stop - at) for s, at in zip(inner, start, strict=True)))] = tile
    return out


def body_box(image: Array, air: float = AIR) -> Box:
    """The box of everything denser than air, with a margin; the whole image where that is all or nothing."""
    dense = image > air + 1e-3
    if not dense.any():
        return tuple(slice(0, size) for size in image.shape)  # type: ignore[return-value]
    sides = []
    for axis, size in enumerate(image.shape):
        where = np.flatnonzero(dense.any(axis=tuple(a for a in range(image.ndim) if a != axis)))
        sides.append(slice(max(0, int(where[0]) - MARGIN), min(size, int(where[-1]) + 1 + MARGIN)))
    return tuple(sides)  # type: ignore[return-value]


def common(body: Box, within: Box | None) -> Box:
    """The part of the body that lies within a box; all of it where none does."""
    if within is None:
        return body
    i, j, k = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(body, within, strict=True))
    return (i, j, k) if all(side.start < side.stop for side in (i, j, k)) else body


def widened(box: Box, least: Sequence[int], shape: Sequence[int]) -> Box:
    """The box with sides of `least` voxels, where an image of `shape` has them: windows see the scan, not a filling."""
    i, j, k = (_wide(side, min(want, n), n) for side, want, n in zip(box, least, shape, strict=True))
    return i, j, k


def _wide(side: slice, want: int, length: int) -> slice:
    size = max(want, side.stop - side.start)
    start = max(0, side.start - (size - (side.stop - side.start)) // 2)
    start = min(start, length - size)
    return slice(start, start + size)


def reached(box: Box, spec: InputSpec, shape: Sequence[int]) -> Box:
    """What windows cover of an image of `shape` where `box` has to be seen: at least one window's size.

    Fitted windows are as many as the box needs; what they reach beyond it, up to `MARGIN`, costs nothing.
    """
    if not spec.fitted:
        return widened(box, spec.patch_size, shape)
    sides = zip(shape_of(box), spec.patch_size, strict=True)
    return widened(box, [_covered(length, size, spec.overlap_ratio) for length, size in sides], shape)


def _covered(length: int, size: int, overlap: float) -> int:
    """Voxels along which the windows lie that `length` voxels need."""
    step = size * (1 - overlap)
    most = size + math.floor(max(0, math.ceil((length - size) / step)) * step)
    return max(size, min(length + 2 * MARGIN, most))


def shape_of(box: Box) -> tuple[int, ...]:
    """Voxels along each side."""
    return tuple(side.stop - side.start for side in box)
