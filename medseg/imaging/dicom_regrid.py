"""Slices of a tilted gantry, or of changing distance, brought onto one straight and even grid.

A tilted gantry shifts each picture within its own plane: moving it back needs no other slice. Between slices of
different distances the wider ones are interpolated linearly. What lies beyond a picture is air.
"""

from __future__ import annotations

import math

import numpy as np

from medseg.imaging.checks import AIR_HU
from medseg.imaging.dicom_geometry import Layout
from medseg.imaging.volume import Array, Finding, axis_lengths


def straightened_shape(shape: tuple[int, int, int], layout: Layout) -> tuple[int, int, int]:
    """The shape that `straighten` will give."""
    size = list(shape)
    if layout.drift_mm is not None:
        for axis in (0, 1):
            low, high = _reach(layout, axis)
            size[axis] += high - low
    if layout.along_mm is not None:
        size[2] = _num_levels(layout)
    return size[0], size[1], size[2]


def straighten(hu: Array, layout: Layout) -> tuple[Array, Array, tuple[Finding, ...]]:
    """HU (i, j, k) on a straight, even grid, its affine, and what was done."""
    affine, findings = layout.affine.copy(), []
    if layout.drift_mm is not None:
        for axis in np.flatnonzero(layout.drift_mm.any(axis=0)):
            hu, affine = _untilt(hu, affine, layout, int(axis))
        text = (
            f"The slices were sheared by {layout.tilt_deg:.1f} degrees (gantry tilt). Each was shifted back within its "
            f"plane; scan and mask lie on the straightened grid of {' x '.join(map(str, hu.shape))} voxels."
        )
        findings.append(Finding("straightened", text))
    if layout.along_mm is not None:
        steps = np.diff(layout.along_mm)
        hu = _even(hu, layout)
        text = (
            f"Slices were {steps.min():.2f} to {steps.max():.2f} mm apart. They were interpolated to an even "
            f"{axis_lengths(affine)[2]:.2f} mm, {hu.shape[2]} slices; the mask lies on these."
        )
        findings.append(Finding("uneven_spacing", text))
    return hu, affine, tuple(findings)


def _shifts(layout: Layout, axis: int) -> Array:
    """How many pixels each slice lies beside the first, along one axis."""
    assert layout.drift_mm is not None
    return np.asarray(layout.drift_mm[:, axis] / axis_lengths(layout.affine)[axis])


def _reach(layout: Layout, axis: int) -> tuple[int, int]:
    """Whole pixels that the straight grid begins before the first slice and ends behind it."""
    shifts = _shifts(layout, axis)
    return math.floor(shifts.min() + 1e-6), math.ceil(shifts.max() - 1e-6)


def _untilt(hu: Array, affine: Array, layout: Layout, axis: int) -> tuple[Array, Array]:
    low, high = _reach(layout, axis)
    shape = list(hu.shape)
    shape[axis] += high - low
    out = np.empty(shape, np.float32, order="F")
    for k, shift in enumerate(_shifts(layout, axis)):
        # Row r of the new grid shows row r + low - shift of the slice.
        at = np.round(np.arange(shape[axis]) + low - shift, 6)
        out[:, :, k] = _along(hu[:, :, k], at, axis)
    affine[:3, 3] += affine[:3, axis] * low
    return out, affine


def _along(picture: Array, at: Array, axis: int) -> Array:
    """A picture at fractional places along one axis; air beyond it."""
    last = picture.shape[axis] - 1
    below = np.clip(np.floor(at), 0, last - 1).astype(int)
    weight = np.clip(at - below, 0.0, 1.0).astype(np.float32)
    beyond = (at < -0.5) | (at > last + 0.5)
    if axis == 0:
        return np.asarray(_along(picture.T, at, 1).T)
    out = picture[:, below] * (1 - weight) + picture[:, below + 1] * weight
    out[:, beyond] = AIR_HU
    return np.asarray(out)


def _num_levels(layout: Layout) -> int:
    assert layout.along_mm is not None
    return round(layout.along_mm[-1] / axis_lengths(layout.affine)[2]) + 1


def _even(hu: Array, layout: Layout) -> Array:
    assert layout.along_mm is not None
    levels = np.linspace(0.0, layout.along_mm[-1], _num_levels(layout))
    at = np.interp(levels, layout.along_mm, np.arange(hu.shape[2]))
    out = np.empty((*hu.shape[:2], len(levels)), np.float32, order="F")
    for k, place in enumerate(np.round(at, 6)):
        below = min(int(place), hu.shape[2] - 2)
        weight = np.float32(place - below)
        out[:, :, k] = hu[:, :, below] * (1 - weight) + hu[:, :, below + 1] * weight
    return out
