"""Separable resampling between axis-parallel grids.

Each axis is a matrix product with a triangle filter as wide as the coarser of the two
grids: linear interpolation when going up, anti-aliased averaging when going down (the
scheme that image libraries call antialiased bilinear). Both grids share their centre, so
that mirroring the scan mirrors the result exactly. Knows numpy, no torch and no files.
"""

from __future__ import annotations

import numpy as np

from medseg.imaging.volume import Array, Geometry

_SAME = 1e-4  # spacings closer than this fraction are one grid: nothing is interpolated


def grid_like(geometry: Geometry, spacing_mm: tuple[float, float, float]) -> Geometry:
    """The grid of `spacing_mm` along the axes of `geometry`, sharing its centre."""
    steps = np.array(geometry.spacing_mm)
    wanted = np.array(spacing_mm)
    wanted = np.where(np.abs(steps / wanted - 1) < _SAME, steps, wanted)
    shape = np.maximum(1, np.ceil(np.array(geometry.shape) * steps / wanted - 1e-3)).astype(int)
    affine = geometry.affine.copy()
    affine[:3, :3] *= wanted / steps
    centre = geometry.affine @ [*((np.array(geometry.shape) - 1) / 2), 1]
    affine[:3, 3] = centre[:3] - affine[:3, :3] @ ((shape - 1) / 2)
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def axis_weights(num_in: int, num_out: int, ratio: float, antialias: bool = True) -> Array:
    """Matrix (num_out, num_in) that resamples one axis; `ratio` = output step / input step."""
    centre = (np.arange(num_out) - (num_out - 1) / 2) * ratio + (num_in - 1) / 2
    centre = np.clip(centre, 0, num_in - 1)
    support = max(ratio, 1.0) if antialias else 1.0
    distance = np.abs(np.arange(num_in)[None] - centre[:, None])
    weights = np.maximum(0.0, 1.0 - distance / support)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resample(array: Array, source: Geometry, target: Geometry, *, antialias: bool = True) -> Array:
    """`array` on `source` resampled to `target`, a grid made by `grid_like`; float32.

    The axis that shrinks most goes first, which keeps the intermediates small.
    """
    ratios = np.array(target.spacing_mm) / np.array(source.spacing_mm)
    # Contiguous: a matrix product sums in another order on a flipped view, and results must not depend on it.
    out = np.ascontiguousarray(array, dtype=np.float32)
    for axis in np.argsort(np.array(target.shape) / np.array(source.shape)):
        if source.shape[axis] == target.shape[axis] and abs(ratios[axis] - 1) < _SAME:
            continue
        weights = axis_weights(source.shape[axis], target.shape[axis], float(ratios[axis]), antialias)
        out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(out)


def resample_labels(labels: Array, source: Geometry, target: Geometry, num_labels: int) -> Array:
    """Label map interpolated linearly class by class and decided by the largest share; uint8.

    Not anti-aliased: a filter wider than an organ would let the background win its voxels.
    """
    best = np.zeros(target.shape, dtype=np.uint8)
    best_share = resample(labels == 0, source, target, antialias=False)
    for value in range(1, num_labels):
        share = resample(labels == value, source, target, antialias=False)
        best = np.where(share > best_share, np.uint8(value), best)
        best_share = np.maximum(share, best_share)
    return best
