"""Separable resampling between axis-parallel grids.

Each axis is a matrix product with a triangle filter as wide as the coarser of the two
grids: linear interpolation when going up, anti-aliased averaging when going down (the
scheme that image libraries call antialiased bilinear). Both grids share their centre, so
that mirroring the scan mirrors the result exactly. Knows numpy, no torch and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medseg.imaging.volume import Array, Geometry

PIECE_VOXELS = 8_000_000
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


def resample(
    array: Array,
    source: Geometry,
    target: Geometry,
    *,
    antialias: bool = True,
    limits: tuple[float, float] | None = None,
) -> Array:
    """`array` on `source` resampled to `target`, a grid made by `grid_like`; float32.

    The axis that shrinks most goes first, piece by piece, so that no second copy of a large scan is made.
    `limits` clips the values before they are averaged.
    """
    rows = zip(source.shape, target.shape, np.array(target.spacing_mm) / np.array(source.spacing_mm), strict=True)
    weights = [
        None if num_in == num_out and abs(ratio - 1) < _SAME else axis_weights(num_in, num_out, ratio, antialias)
        for num_in, num_out, ratio in rows
    ]
    return apply_weights(array, weights, target.shape, limits)


def apply_weights(
    array: Array, weights: Sequence[Array | None], shape: tuple[int, ...], limits: tuple[float, float] | None = None
) -> Array:
    """One matrix (out, in) an axis applied to `array`, float32 of `shape`; None leaves an axis as it is."""
    first, *others = (int(axis) for axis in np.argsort(np.array(shape) / np.array(array.shape)))
    out = np.empty([shape[n] if n == first else size for n, size in enumerate(array.shape)], np.float32)
    for piece in _pieces(array.shape, others[-1]):
        out[piece] = _product(weights[first], _part(array[piece], limits), first)
    for axis in others:
        out = _product(weights[axis], out, axis)
    return np.ascontiguousarray(out)


def _part(piece: Array, limits: tuple[float, float] | None) -> Array:
    # Contiguous: a matrix product sums in another order on a flipped view, and results must not depend on it.
    part = np.ascontiguousarray(piece, dtype=np.float32)
    return part if limits is None else part.clip(*limits)


def _product(weights: Array | None, array: Array, axis: int) -> Array:
    if weights is None:
        return array
    return np.moveaxis(np.tensordot(weights, array, axes=(1, axis)), 0, axis)


def _pieces(shape: tuple[int, ...], axis: int) -> Iterator[tuple[slice, ...]]:
    """The whole array, cut along `axis` into pieces of some million voxels."""
    step = max(1, PIECE_VOXELS * shape[axis] // max(1, int(np.prod(shape))))
    for start in range(0, shape[axis], step):
        yield tuple(slice(start, start + step) if n == axis else slice(None) for n in range(len(shape)))


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
