"""Surfaces for the viewer's 3-D picture: organs of a result, and the bones of the scan."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from app.drafts import sizes_of
from app.scans import MASK, Scan, read_scan
from app.work.segment import SHOWN
from medseg.exports.surface import Surface, surface_of
from medseg.imaging.volume import Array, Geometry
from medseg.jobs.request import JobRequest
from medseg.runtime.progress import Progress, ProgressCallback

BONE_HU = 220
COARSE_MM = 2.0
BONE_MM = 2.6
MIN_BONE_ML = 1.0
_MAGIC, _HAS_FACES_AND_POINTS = 23117, 3


def surfaces(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Write VALUE.mz3 for every organ of the result `extra["result"]`, or bone.mz3 where none is named.

    They are drawn on a grid of some two millimetres: for the eye, not for a printer. An organ that this grid misses
    has a surface without triangles: the viewer waits for every organ that the result holds.
    """
    scan = read_scan(Path(request.extra["scan"]))
    assert scan is not None
    folder = request.extra.get("result", "")
    if not folder:
        (request.out / "bone.mz3").write_bytes(mz3(bone_surface(scan)))
        return {}
    mask = np.load(Path(folder) / SHOWN / MASK, mmap_mode="r")
    small, geometry = _coarse(mask, scan, COARSE_MM)
    values = sorted(sizes_of(mask))
    for number, value in enumerate(values):
        progress(Progress("show", number / len(values), ""))
        (request.out / f"{value}.mz3").write_bytes(mz3(_surface(small == value, geometry)))
    return {}


def _coarse(array: Array, scan: Scan, step_mm: float) -> tuple[Array, Geometry]:
    """Every n-th voxel, so that steps come near `step_mm`; and where these lie."""
    steps = [max(1, round(step_mm / spacing)) for spacing in scan.spacing_mm]
    small = np.asfortranarray(array[:, :, :: steps[2]][:: steps[0], :: steps[1]])
    x, y, z = small.shape
    return small, Geometry((x, y, z), scan.affine @ np.diag([*steps, 1.0]))


def bone_surface(scan: Scan) -> Surface:
    """What is as dense as bone, without specks, couch and the like as far as size tells."""
    hu, geometry = _coarse(scan.hu(), scan, BONE_MM)
    parts, count = ndimage.label(hu > BONE_HU)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    large = sizes * geometry.voxel_ml >= MIN_BONE_ML
    large[0] = False
    return _surface(large[parts], geometry)


def _surface(part: Array, geometry: Geometry) -> Surface:
    """Of a part that may be empty."""
    if not part.any():
        return Surface(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((0, 3), np.float32))
    return surface_of(part, geometry)


def mz3(surface: Surface) -> bytes:
    """A surface in the viewer's own format: faces, then points in mm."""
    counts = (len(surface.triangles), len(surface.points), 0)
    head = struct.pack("<HHIII", _MAGIC, _HAS_FACES_AND_POINTS, *counts)
    return head + surface.triangles.astype("<i4").tobytes() + surface.points.astype("<f4").tobytes()
