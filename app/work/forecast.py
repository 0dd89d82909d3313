"""How long a scan will take with a model, and how much memory: before anybody waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.scans import Scan, read_scan
from medseg.api import forecast as foretell
from medseg.imaging import Volume
from medseg.imaging.emit import emit_json
from medseg.imaging.volume import Geometry
from medseg.inference.memory import MB, resident_mb
from medseg.jobs.request import JobRequest
from medseg.runtime.progress import ProgressCallback

FILE = "forecast.json"
AROUND_VOXELS_PER_SECOND = 2e7
RULES_VOXELS_PER_SECOND = 4e6
RULES_BYTES_PER_VOXEL = 30
"""Rough figures of two slow cores for reading and writing, and for models without a network. What a network costs is
measured on this machine."""


def forecast(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Write seconds and peak memory for the scan that lies in `extra["scan"]` into `request.out`."""
    scan = read_scan(Path(request.extra["scan"]))
    assert scan is not None
    seconds, memory_mb = _foretold(scan, request.model)
    emit_json(request.out / FILE, {"seconds": round(seconds, 1), "memory_mb": round(memory_mb)})
    return {}


def _foretold(scan: Scan, model: str) -> tuple[float, float]:
    hu = scan.hu()
    plan = foretell(Volume(hu, Geometry(scan.shape, scan.affine)), model=model)
    around = hu.size / AROUND_VOXELS_PER_SECOND
    if plan is None:
        return hu.size / RULES_VOXELS_PER_SECOND + around, resident_mb() + RULES_BYTES_PER_VOXEL * hu.size / MB
    return plan.seconds + around, plan.memory_mb + 4 * hu.size / MB
