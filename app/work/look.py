"""A scan has arrived: read it, say what it is, and lay it out for the viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.scans import FACTS, HU
from app.work.reading import read
from medseg.imaging import Volume
from medseg.imaging.emit import emit, emit_json
from medseg.imaging.room import reading_room
from medseg.imaging.volume import Array, reorient
from medseg.jobs.request import JobRequest
from medseg.results.pictures import PLANES, Look, Scene, draw, to_png
from medseg.runtime.progress import Progress, ProgressCallback

FIRST_SIZE = 480
FIRST_WINDOW = (40.0, 400.0)


def look(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Read the scan into `request.out`: facts, and HU in canonical order; a first picture into `extra["first"]`.

    The picture lies there as soon as the scan is read, while the rest is still being made.

    Raises:
        InputError: the scan cannot be used, or holds several series.
    """
    if request.extra.get("warm"):
        reading_room().warm_up()
        return {}
    progress(Progress("read", 0.1, "Reading the scan"))
    volume = read(request)
    progress(Progress("show", 0.6, "Preparing the pictures"))
    if first := request.extra.get("first"):
        emit(Path(first), lambda path: path.write_bytes(first_picture(volume)))
    hu = canonical_hu(volume)
    np.save(request.out / HU, hu)
    emit_json(request.out / FACTS, facts_of(volume, hu))
    return {"findings": [str(finding) for finding in volume.findings]}


def canonical_hu(volume: Volume) -> Array:
    """int16, right-front-head order, first axis fastest: slices lie in one piece."""
    turned = reorient(volume.hu, volume.geometry.to_canonical)
    hu = np.empty(turned.shape, np.int16, order="F")
    # Slice by slice: the whole at once passes through memory five times, and the visitor waits for it.
    for k in range(turned.shape[2]):
        hu[:, :, k] = np.clip(np.rint(turned[:, :, k]), -32768, 32767)
    return hu


def first_picture(volume: Volume) -> bytes:
    """Three planes through the middle, side by side, as PNG: what is shown until the viewer itself has loaded."""
    hu = reorient(volume.hu, volume.geometry.to_canonical)
    scene = Scene(hu, np.broadcast_to(np.uint8(0), hu.shape), volume.geometry.canonical().spacing_mm, {})
    middle = tuple(size // 2 for size in scene.shape)
    look = Look(FIRST_WINDOW, {}, size=FIRST_SIZE, lines=False)
    strip = Image.new("RGB", (FIRST_SIZE * len(PLANES), FIRST_SIZE))
    for number, plane in enumerate(PLANES):
        strip.paste(draw(scene, plane, (middle[0], middle[1], middle[2]), look), (number * FIRST_SIZE, 0))
    return to_png(strip)


def facts_of(volume: Volume, hu: Array) -> dict[str, Any]:
    """What the page says about a scan, and what the viewer has to know. No patient, no header text."""
    geometry = volume.geometry
    canonical = geometry.canonical()
    return {
        "format": volume.format,
        "series": volume.series,
        "stored_shape": list(geometry.shape),
        "stored_spacing_mm": list(geometry.spacing_mm),
        "orientation": geometry.orientation,
        "shape": list(canonical.shape),
        "spacing_mm": list(canonical.spacing_mm),
        "affine": canonical.affine.tolist(),
        "hu_range": [int(hu.min()), int(hu.max())],
        "findings": [{"code": f.code, "message": f.message, "severity": f.severity} for f in volume.findings],
        "sha256": volume.sha256,
    }
