"""Logits on the model's grid -> labels on the input's grid.

The logits are interpolated linearly to the input's grid before the label is decided, so
that organs have smooth outlines on slices thinner than the model's. It happens slab by
slab and only in the box that holds organs: memory does not grow with classes x scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array, Geometry, restore_orientation

SLAB_VOXELS = 1_000_000
_MARGIN = 2  # model voxels around the decided organs: linear interpolation reaches one


@dataclass(frozen=True)
class LabelMap:
    """Labels on a grid.

    Attributes:
        labels: uint8, 0 is background.
        confidence: uint8, the probability of the decided label in 1/255; 0 where background.
        geometry: the grid of both.
    """

    labels: Array
    confidence: Array
    geometry: Geometry


def restore(logits: Array, grid: Geometry, source: Geometry) -> LabelMap:
    """Decide labels on `source` from `logits` (float32 [C, i, j, k]) on `grid`.

    `grid` is any grid made by `prepare` from `source`; the result is indexed as `source`.
    """
    canonical = source.canonical()
    labels = np.zeros(canonical.shape, dtype=np.uint8)
    confidence = np.zeros(canonical.shape, dtype=np.uint8)
    # Rounded, so that a tie between two labels falls alike in every orientation of a file.
    to_grid = np.round(np.linalg.inv(grid.affine) @ canonical.affine, 9)
    box = _organ_box(logits)
    if box is not None:
        inner = logits[(slice(None), *box)]
        shift = np.array([side.start for side in box], dtype=float)
        for slab in _slabs(box, to_grid, canonical.shape):
            slab_logits = _sample(inner, to_grid, shift, slab)
            labels[slab], confidence[slab] = decide(slab_logits)
    ornt = source.to_canonical
    return LabelMap(
        np.ascontiguousarray(restore_orientation(labels, ornt)),
        np.ascontiguousarray(restore_orientation(confidence, ornt)),
        source,
    )


def decide(logits: Array) -> tuple[Array, Array]:
    """Logits [C, ...] -> (label uint8, its softmax probability in 1/255 or 0 for background)."""
    label = logits.argmax(axis=0).astype(np.uint8)
    best = logits.max(axis=0)
    probability = 1.0 / np.exp(logits - best).sum(axis=0)
    return label, np.where(label > 0, np.round(probability * 255), 0).astype(np.uint8)


def _organ_box(logits: Array) -> tuple[slice, slice, slice] | None:
    found = logits.argmax(axis=0) > 0
    if not found.any():
        return None
    sides = []
    for axis in range(3):
        where = np.flatnonzero(found.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = max(0, where[0] - _MARGIN), min(found.shape[axis], where[-1] + 1 + _MARGIN)
        sides.append(slice(int(low), int(high)))
    return sides[0], sides[1], sides[2]


def _slabs(
    box: tuple[slice, slice, slice], to_grid: Array, shape: tuple[int, ...]
) -> Iterator[tuple[slice, slice, slice]]:
    """Source boxes that cover the organs' box, cut along k so that each holds few voxels.

    The box reaches half a model voxel beyond its centres: where the scan ends, thin slices lie there.
    """
    corners = np.array(np.meshgrid(*[(side.start - 0.5, side.stop - 0.5) for side in box])).reshape(3, -1)
    back = np.linalg.inv(to_grid)
    points = back[:3, :3] @ corners + back[:3, 3:]
    low = np.maximum(np.floor(points.min(axis=1)), 0).astype(int)
    high = np.minimum(np.ceil(points.max(axis=1)) + 1, shape).astype(int)
    if (high <= low).any():
        return
    step = max(1, SLAB_VOXELS // int((high[0] - low[0]) * (high[1] - low[1])))
    for start in range(low[2], high[2], step):
        yield slice(low[0], high[0]), slice(low[1], high[1]), slice(start, min(start + step, high[2]))


def _sample(logits: Array, to_grid: Array, shift: Array, slab: tuple[slice, slice, slice]) -> Array:
    """Linear interpolation of `logits` [C, ...] at the voxels of `slab`."""
    linear = to_grid[:3, :3]
    starts = np.array([side.start for side in slab], dtype=float)
    offset = linear @ starts + to_grid[:3, 3] - shift
    sizes = [side.stop - side.start for side in slab]
    if np.abs(linear - np.diag(np.diag(linear))).max() < 1e-6:
        return _sample_parallel(logits, np.diag(linear), offset, sizes)
    channels = [
        ndimage.affine_transform(channel, linear, offset, output_shape=sizes, order=1, mode="nearest")
        for channel in logits
    ]
    return np.stack(channels)


def _sample_parallel(logits: Array, step: Array, offset: Array, sizes: list[int]) -> Array:
    """The same for parallel axes: one matrix product per axis."""
    out = logits
    for axis in (2, 1, 0):
        weights = _linear_weights(logits.shape[axis + 1], offset[axis] + step[axis] * np.arange(sizes[axis]))
        out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis + 1)), 0, axis + 1)
    return out


def _linear_weights(num_in: int, positions: Array) -> Array:
    """Matrix [positions, num_in] of linear interpolation, held at the ends."""
    positions = np.clip(positions, 0, num_in - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(num_in)[None] - positions[:, None]))
    return weights.astype(np.float32)
