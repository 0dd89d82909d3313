"""Cubic splines without a filter, on a grid that spans the scan exactly: how nnU-Net resamples.

Its networks were trained on images made so, and see another noise in ours. Interpolation by splines is linear in
the voxels and separable, so that each axis is one matrix here as well; nnU-Net calls skimage for the volume as
a whole, in float64. Where voxels are more than three times as long as wide, slices are taken, not interpolated.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array, Geometry
from medseg.preprocess.resample import apply_weights

MAX_ANISOTROPY = 3.0


def spanning_grid(geometry: Geometry, spacing_mm: tuple[float, float, float]) -> Geometry:
    """The grid near `spacing_mm` whose voxels fill the scan's extent exactly."""
    steps, sizes = np.array(geometry.spacing_mm), np.array(geometry.shape)
    shape = np.maximum(1, np.round(steps / np.array(spacing_mm) * sizes)).astype(int)
    affine = geometry.affine.copy()
    affine[:3, :3] *= sizes / shape
    centre = geometry.affine @ [*((sizes - 1) / 2), 1]
    affine[:3, 3] = centre[:3] - affine[:3, :3] @ ((shape - 1) / 2)
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def resample_by_splines(
    array: Array,
    source: Geometry,
    target: Geometry,
    spacing_mm: tuple[float, float, float],
    limits: tuple[float, float],
) -> Array:
    """`array`, clipped to `limits`, on `target`, which `spanning_grid` made for `spacing_mm`; float32."""
    taken = sliced_axis(source.spacing_mm, spacing_mm)
    weights: list[Array | None] = []
    for axis, (num_in, num_out) in enumerate(zip(source.shape, target.shape, strict=True)):
        matrix = nearest_weights if axis == taken else spline_weights
        weights.append(None if num_in == num_out else matrix(num_in, num_out))
    return apply_weights(array, weights, target.shape, limits).clip(*limits)


def sliced_axis(*spacings_mm: tuple[float, float, float]) -> int | None:
    """The axis of long voxels, by the first of the spacings that is that uneven; None where there is none."""
    for spacing in spacings_mm:
        if max(spacing) > MAX_ANISOTROPY * min(spacing):
            longest = np.flatnonzero(np.array(spacing) == max(spacing))
            return int(longest[0]) if len(longest) == 1 else None
    return None


def spline_weights(num_in: int, num_out: int) -> Array:
    """Matrix (num_out, num_in) of cubic spline interpolation between grids of one extent, held at the ends."""
    if num_in == 1:
        return np.ones((num_out, 1), np.float32)
    units = np.eye(num_in)
    columns = ndimage.zoom(units, (num_out / num_in, 1), order=3, mode="nearest", grid_mode=True)
    return np.asarray(columns, dtype=np.float32)


def nearest_weights(num_in: int, num_out: int) -> Array:
    """Matrix (num_out, num_in) that takes the nearest slice."""
    nearest = np.floor((np.arange(num_out) + 0.5) * num_in / num_out).astype(int)
    return np.eye(num_in, dtype=np.float32)[np.clip(nearest, 0, num_in - 1)]
