"""From a mask to the surface of an organ, smooth and of the mask's own volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.exports.libraries import marching_cubes_library
from medseg.imaging.volume import Array, Geometry

SMOOTHING_MM = 1.0
MAX_SIGMA_VOXELS = 1.0
_MARGIN = 4


@dataclass(frozen=True)
class Surface:
    """Triangles, seen counter-clockwise from outside.

    Attributes:
        points: float32 [n, 3], RAS mm.
        triangles: int32 [m, 3], indices of points.
        normals: float32 [n, 3], of length one.
    """

    points: NDArray[np.float32]
    triangles: NDArray[np.int32]
    normals: NDArray[np.float32]


def surface_of(mask: Array, geometry: Geometry) -> Surface:
    """The surface of a mask that is not empty.

    The mask is blurred a little so that the steps of voxels vanish, and cut at the level that leaves it the volume
    that it had: a blurred mask cut at one half would lose its thin parts.

    Args:
        mask: bool on the grid.
        geometry: of the mask.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    inside = np.pad(mask[box], _MARGIN).astype(np.float32)
    sigma = [min(MAX_SIGMA_VOXELS, SMOOTHING_MM / step) for step in geometry.spacing_mm]
    field = ndimage.gaussian_filter(inside, sigma, mode="constant")
    level = _level(field, int(inside.sum()))
    points, triangles, _, _ = marching_cubes_library().marching_cubes(field, level)
    corner = np.array([side.start - _MARGIN for side in box], dtype=np.float64)
    placed = (points + corner) @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    return _finished(placed, triangles)


def _level(field: NDArray[np.float32], voxels: int) -> float:
    """Between the last voxel that has to be inside and the first that has not."""
    ordered = np.partition(field.ravel(), (field.size - voxels - 1, field.size - voxels))
    low, high = float(ordered[field.size - voxels - 1]), float(ordered[field.size - voxels])
    return max((low + high) / 2, 1e-3)


def _finished(points: Array, triangles: Array) -> Surface:
    """With normals that point outwards; a mirrored grid has turned all triangles round."""
    triangles = triangles.astype(np.int32)
    if signed_volume(points, triangles) < 0:
        triangles = np.ascontiguousarray(triangles[:, ::-1])
    faces = points[triangles]
    across = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], across)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = normals / np.maximum(length, 1e-12)
    return Surface(points.astype(np.float32), triangles, normals.astype(np.float32))


def signed_volume(points: Array, triangles: Array) -> float:
    """mm3 enclosed by a closed surface; negative where its triangles are turned inwards."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)
