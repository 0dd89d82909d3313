"""Volume -> what a network sees, and the record that the way back needs. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array, Geometry, Volume, reorient
from medseg.preprocess.intensity import Intensity, normalise_in_place, standardise, statistics
from medseg.preprocess.resample import grid_like, resample
from medseg.preprocess.spline import resample_by_splines, spanning_grid

MAX_OBLIQUE_DEG = 15.0  # what rotation augmentation covers; beyond it the scan is turned upright
AIR_HU, METAL_HU = -1024.0, 3071.0  # padding below and extended scales above say nothing; training clips there too


@dataclass(frozen=True)
class Prepared:
    """A scan on the model's grid.

    Attributes:
        image: float32 [i, j, k], normalised, axes in the nearest RAS order.
        grid: where `image` lies.
        source: the grid that the result has to return to.
        air: value of air in `image`, below which nothing lies.
    """

    image: Array
    grid: Geometry
    source: Geometry
    air: float = -1.0


def prepare(
    volume: Volume,
    spacing_mm: tuple[float, float, float],
    window_hu: tuple[float, float],
    intensity: Intensity = "window",
) -> Prepared:
    """Turn to RAS order, resample with anti-aliasing to `spacing_mm`, normalise HU.

    `intensity`: 'window' spans the window from -1 to 3; 'z-score' subtracts the mean of the scan's own voxels
    and divides by their deviation, for networks of other tools that were trained so. 'nnunet-window' and
    'nnunet-z-score' do the same to images that are clipped first and resampled as nnU-Net does.
    """
    hu, grid = to_grid(volume, spacing_mm, window_hu if _like_nnunet(intensity) else None)
    if intensity in ("window", "nnunet-window"):
        return Prepared(normalise_in_place(hu, window_hu), grid, volume.geometry)
    mean, deviation = statistics(volume.hu, window_hu)
    low = max(AIR_HU, window_hu[0])
    return Prepared(standardise(hu, window_hu, mean, deviation), grid, volume.geometry, air=(low - mean) / deviation)


def model_grid(geometry: Geometry, spacing_mm: tuple[float, float, float], intensity: Intensity = "window") -> Geometry:
    """The grid on which `prepare` puts a scan that lies on `geometry`."""
    source = geometry.canonical()
    if _is_oblique(source):
        return upright_grid(source, spacing_mm)
    return spanning_grid(source, spacing_mm) if _like_nnunet(intensity) else grid_like(source, spacing_mm)


def _like_nnunet(intensity: Intensity) -> bool:
    return intensity in ("nnunet-window", "nnunet-z-score")


def _is_oblique(source: Geometry) -> bool:
    return obliqueness_deg(source) > MAX_OBLIQUE_DEG


def to_grid(
    volume: Volume, spacing_mm: tuple[float, float, float], splines_within: tuple[float, float] | None = None
) -> tuple[Array, Geometry]:
    """HU (float32) on a grid of `spacing_mm` in RAS order, and that grid; clipped first where splines are asked for."""
    source = volume.geometry.canonical()
    hu = reorient(volume.hu, volume.geometry.to_canonical)
    if splines_within is None:
        grid = grid_like(source, spacing_mm)
        hu = resample(hu, source, grid, limits=(AIR_HU, METAL_HU))
    else:
        grid = spanning_grid(source, spacing_mm)
        hu = resample_by_splines(hu, source, grid, spacing_mm, limits=splines_within)
    if _is_oblique(source):
        upright = upright_grid(source, spacing_mm)
        hu, grid = _turn(hu, grid, upright), upright
    return hu, grid


def obliqueness_deg(geometry: Geometry) -> float:
    """Largest angle between a canonical axis of the scan and its world axis."""
    directions = geometry.affine[:3, :3] / np.array(geometry.spacing_mm)
    return float(np.degrees(np.arccos(np.clip(np.diag(directions), -1, 1))).max())


def upright_grid(geometry: Geometry, spacing_mm: tuple[float, float, float]) -> Geometry:
    """The RAS-parallel grid that encloses a rotated scan."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in geometry.shape])).reshape(3, -1)
    world = geometry.affine[:3, :3] @ corners + geometry.affine[:3, 3:]
    low, high = world.min(axis=1), world.max(axis=1)
    shape = np.ceil((high - low) / np.array(spacing_mm) - 1e-6).astype(int) + 1
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = low
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _turn(hu: Array, source: Geometry, target: Geometry) -> Array:
    matrix = np.round(np.linalg.inv(source.affine) @ target.affine, 9)
    turned: Array = ndimage.affine_transform(
        hu, matrix[:3, :3], matrix[:3, 3], output_shape=target.shape, order=1, mode="constant", cval=AIR_HU
    )
    return turned
