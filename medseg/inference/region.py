"""Region: a box in a scan, by its corners in millimetres, so that it can be found on any grid of that scan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array, Geometry, reorient
from medseg.inference.tissue import FAT_HU
from medseg.inference.windows import Box

_LUNGS_HU = (-900.0, -500.0)  # foam of a couch is lighter
_COARSE_MM = 4.0
_PART = 0.05  # of the largest part: two legs are two parts, and so are arms


@dataclass(frozen=True)
class Region:
    """A box in a scan.

    Attributes:
        corners_mm: its eight corners, RAS mm [3, 8].
    """

    corners_mm: Array

    @classmethod
    def around(cls, mask: Array, grid: Geometry) -> Region | None:
        """The box of the voxels that are true in `mask` on `grid`; None where none is."""
        if not mask.any():
            return None
        where = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        corners = np.array(list(product(*[(side[0] - 0.5, side[-1] + 0.5) for side in where]))).T
        return cls(grid.affine[:3, :3] @ corners + grid.affine[:3, 3:])

    def on(self, grid: Geometry, margin_mm: float | Array) -> Box:
        """The voxels of `grid` that lie in the box or within `margin_mm` of it (one for all axes, or one each)."""
        back = np.linalg.inv(grid.affine)
        index = back[:3, :3] @ self.corners_mm + back[:3, 3:]
        margin = np.asarray(margin_mm) / np.array(grid.spacing_mm)
        last = np.array(grid.shape) - 1
        low = np.clip(np.floor(index.min(axis=1) - margin), 0, last).astype(int)
        high = np.clip(np.ceil(index.max(axis=1) + margin), low, last).astype(int) + 1
        i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return i, j, k


def body_region(hu: Array, geometry: Geometry, air_hu: float, step: int = 4) -> Region | None:
    """Roughly where something denser than `air_hu` lies, seen at every `step`th voxel."""
    affine = geometry.affine @ np.diag([step, step, step, 1.0])
    seen = hu[::step, ::step, ::step] > air_hu
    return Region.around(seen, Geometry((seen.shape[0], seen.shape[1], seen.shape[2]), affine))


def patient_region(hu: Array, geometry: Geometry) -> Region | None:
    """Where the patient lies: tissue and lungs, without what is thinner than some 12 mm (couch, mask, wires).

    The same for a scan in any orientation. Lungs count by themselves, because their wall may be thin, or lie outside
    of a scan that shows them alone.
    """
    source = geometry.canonical()
    steps = [max(1, round(_COARSE_MM / mm)) for mm in source.spacing_mm]
    seen = reorient(hu, geometry.to_canonical)[tuple(slice(None, None, step) for step in steps)]
    lungs = (seen > _LUNGS_HU[0]) & (seen < _LUNGS_HU[1])
    i, j, k = seen.shape
    affine = source.affine @ np.diag([*steps, 1.0])
    return Region.around(_large(_thick(seen > FAT_HU[0]) | _thick(lungs)), Geometry((i, j, k), affine))


def _thick(mask: Array) -> Array:
    """Without what is thinner than three voxels. The scan goes on beyond its ends."""
    return np.asarray(ndimage.binary_dilation(ndimage.binary_erosion(mask, border_value=1)))


def _large(mask: Array) -> Array:
    """Without parts that are small beside the largest."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= max(1, _PART * sizes.max()))[parts])
