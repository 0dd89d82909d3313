"""How long a scan will take with a model, and how much memory: before anybody waits for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg.imaging.emit import emit_json
from medseg.imaging.volume import Geometry
from medseg.inference.memory import MB, fit, resident_mb
from medseg.inference.segmenter import NetworkSegmenter, warm_segmenter
from medseg.jobs.request import JobRequest
from medseg.runtime.progress import ProgressCallback

FILE = "forecast.json"
READ_VOXELS_PER_SECOND = 4e7
TISSUE_VOXELS_PER_SECOND = 4e6
TISSUE_BYTES_PER_VOXEL = 30
"""Rough figures of two slow cores, for the clock alone; the network's own cost is measured on this machine."""


def forecast(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Write seconds and peak memory into `request.out`; `extra` holds the stored grid of the scan."""
    shape, affine = request.extra["shape"], np.array(request.extra["affine"])
    geometry = Geometry((shape[0], shape[1], shape[2]), affine)
    emit_json(request.out / FILE, _forecast(request.model, geometry))
    return {}


def _forecast(model: str, geometry: Geometry) -> dict[str, Any]:
    voxels = float(np.prod(geometry.shape))
    _, segmenter = warm_segmenter(model)
    around = 2 * voxels / READ_VOXELS_PER_SECOND
    if not isinstance(segmenter, NetworkSegmenter):
        memory = resident_mb() + TISSUE_BYTES_PER_VOXEL * voxels / MB
        return {"seconds": round(voxels / TISSUE_VOXELS_PER_SECOND + around, 1), "memory_mb": round(memory)}
    classes, occupied = len(segmenter.labels) + 1, resident_mb() + 4 * voxels / MB
    plan = fit(geometry, segmenter.input, classes, segmenter.cost(), occupied, None)
    return {"seconds": round(plan.seconds + around, 1), "memory_mb": round(plan.memory_mb)}
