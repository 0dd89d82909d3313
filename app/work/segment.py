"""Segment a scan for the page: files as everywhere, and beside them what the viewer shows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import medseg
from app.scans import MASK, PAGE
from app.work.reading import check_unchanged, read
from medseg.imaging import Volume
from medseg.imaging.emit import emit_json
from medseg.imaging.volume import Array, reorient
from medseg.jobs.request import JobRequest
from medseg.results.pictures import find_middles
from medseg.results.segmentation import Segmentation
from medseg.runtime.progress import Progress, ProgressCallback

SHOWN = "page"
"""Folder within a result that holds what the page alone needs."""
BINS = 60


def segment(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Segment, save, and keep what the viewer draws.

    Args:
        request: the study; `out` exists and is empty.
        progress: told about every step; raises where the visitor cancels.

    Raises:
        ScanChangedError: the scan is not the one that was opened.
    """
    report = partial(_most, progress)
    source = _previewed(request, report) or request.source
    result = medseg.segment(
        source, model=request.model, series=request.series, progress=report, options=request.options
    )
    check_unchanged(request, result.volume)
    progress(Progress("save", 0.93, ""))
    result.save(request.out)
    progress(Progress("show", 0.97, ""))
    keep_for_page(request.out / SHOWN, result)
    return {"findings": [str(finding) for finding in result.findings]}


def _previewed(request: JobRequest, progress: ProgressCallback) -> Volume | None:
    """The scan, where a coarse result was made of it first because the full one takes long."""
    from app.work.preview import WORTH_S, write_preview

    if float(request.extra.get("forecast_s", 0.0)) < WORTH_S:
        return None
    progress(Progress("read", 0.02, "Reading the scan"))
    volume = read(request)
    write_preview(Path(request.extra["preview"]), volume, request.model, progress)
    return volume


def _most(progress: ProgressCallback, event: Progress) -> None:
    # For segment() the job ends with the measuring; here files and pictures come after it.
    if event.stage != "done":
        progress(replace(event, fraction=event.fraction * 0.92))


def keep_for_page(folder: Path, result: Segmentation) -> None:
    """Write the mask in canonical order, and where organs lie and which HU they have."""
    folder.mkdir(exist_ok=True)
    ornt = result.volume.geometry.to_canonical
    mask = reorient(result.mask, ornt).astype(np.uint8, order="F")
    np.save(folder / MASK, mask)
    facts = {
        "middles": find_middles(mask),
        "histograms": histograms(result.mask, result.volume.hu, [label.value for label in result.labels]),
    }
    emit_json(folder / PAGE, facts)


def histograms(mask: Array, hu: Array, values: list[int]) -> dict[int, dict[str, Any]]:
    """For every organ that was found: counts of voxels between the 0.5th and the 99.5th percentile of its HU."""
    found = {}
    for value in values:
        inside = hu[mask == value]
        if inside.size:
            low, high = np.percentile(inside, [0.5, 99.5])
            low, high = np.floor(low), np.ceil(high) + 1
            counts, _ = np.histogram(np.clip(inside, low, high), BINS, (low, high))
            found[value] = {"low": float(low), "high": float(high), "counts": counts.tolist()}
    return found
