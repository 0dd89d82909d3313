"""segment(): the main job, end to end, as one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import GeometryError
from medseg.imaging import Volume, read_volume
from medseg.imaging.checks import check_finite
from medseg.imaging.room import reading_room
from medseg.inference.memory import Forecast
from medseg.inference.segmenter import Raw, Segmenter
from medseg.inference.warm import warm_segmenter
from medseg.models.store import ModelPackage
from medseg.results.measure import measure
from medseg.results.segmentation import Segmentation
from medseg.results.verdict import verdict_of, why_empty
from medseg.runtime.options import Options
from medseg.runtime.progress import Progress, ProgressCallback, ignore
from medseg.runtime.provenance import StageClock, machine, now, peak_memory_mb, reset_peak_memory, versions

DEFAULT_MODEL = "head-neck-oar"


def segment(
    source: str | Path | Volume,
    *,
    model: str = DEFAULT_MODEL,
    series: str | int | None = None,
    progress: ProgressCallback | None = None,
    options: Options | None = None,
) -> Segmentation:
    """Segment one CT.

    Args:
        source: NIfTI, NRRD or MHA file, DICOM folder, zip of one, or a Volume.
        model: name of an installed model, or the folder of a package.
        series: number or UID of the series, where a folder holds several.
        progress: called with every step forward; raising `Cancelled` in it stops the job.
        options: backend, precision, a limit of memory, a localiser, organs whose probabilities are kept.

    Returns:
        The mask on the scan's own grid, measured. Empty organs are rows with 0 ml and
        findings that say why.

    Raises:
        InputError: the scan cannot be used; the text names the file and the way out.
        ModelError: the model is unknown, damaged or altered.
        ConfigError: a backend, precision or organ that does not exist here.
        ResourceError: the scan does not fit into the allowed memory.
    """
    report, clock, options = progress or ignore, StageClock(), options or Options()
    reset_peak_memory()
    if not isinstance(source, Volume):
        reading_room().warm_up()  # it starts while the model is loaded
    with clock.stage("model"):
        report(Progress("model", 0.0, "Loading the model"))
        package, segmenter = warm_segmenter(model, options)
    with clock.stage("read"):
        report(Progress("read", 0.02, "Reading the scan"))
        volume = _volume(source, series, options)
    raw = segmenter(volume, clock, report, options)
    with clock.stage("measure"):
        report(Progress("measure", 0.92, "Measuring"))
        measurements = measure(raw.label_map, volume, segmenter.labels)
    mask = raw.label_map.labels
    findings = (*volume.findings, *raw.findings, *why_empty(mask, segmenter.labels, raw.findings))
    report(Progress("done", 1.0, "Done"))
    run = _run_report(volume, package, segmenter, clock) | _foretold(raw) | {"verdict": verdict_of(mask)}
    run |= {"accepted": options.accept} if options.accept else {}
    return Segmentation(mask, segmenter.labels, volume, measurements, findings, run, raw.probabilities)


def _volume(source: str | Path | Volume, series: str | int | None, options: Options) -> Volume:
    if isinstance(source, Volume):
        return _checked(source)
    return read_volume(source, series=series, accept=options.accept or None)


def forecast(volume: Volume, *, model: str = DEFAULT_MODEL, options: Options | None = None) -> Forecast | None:
    """How long `segment` will take for a scan in memory, and how much memory; None for models without a network.

    The first call for a model on a machine loads it and measures what a window costs: a few seconds.

    Raises:
        ModelError: the model is unknown, damaged or altered.
        ConfigError: a backend or precision that does not exist here.
        ResourceError: the scan does not fit into the allowed memory.
    """
    options = options or Options()
    _, segmenter = warm_segmenter(model, options)
    return segmenter.forecast(volume, options)


def _checked(volume: Volume) -> Volume:
    """A volume made in memory has passed no intake; what would go wrong in silence is refused here too."""
    if volume.hu.shape != volume.geometry.shape:
        raise GeometryError(volume.name, f"an array of {volume.hu.shape} on a grid of {volume.geometry.shape}.")
    if not (np.isfinite(volume.affine).all() and volume.geometry.voxel_ml > 0):
        raise GeometryError(volume.name, "its affine is singular or not finite.")
    check_finite(Path(volume.name), volume.hu)
    return volume


def _foretold(raw: Raw) -> dict[str, Any]:
    return {} if raw.forecast is None else {"forecast": raw.forecast.to_json()}


def _run_report(volume: Volume, package: ModelPackage, segmenter: Segmenter, clock: StageClock) -> dict[str, Any]:
    card, geometry = package.card, volume.geometry
    return {
        "study": volume.name,
        "created": now(),
        "model": {"name": card.name, "version": card.version, "sha256": package.sha256},
        "backend": getattr(segmenter, "backend", "rules"),
        "precision": getattr(segmenter, "precision", "fp32"),
        "input": {
            "format": volume.format,
            "sha256": volume.sha256,
            "shape": list(geometry.shape),
            "spacing_mm": [round(step, 6) for step in geometry.spacing_mm],
            "orientation": geometry.orientation,
        },
        "intake": dict(volume.evidence),
        "seconds": dict(clock.seconds) | {"total": round(sum(clock.seconds.values()), 3)},
        "peak_memory_mb": peak_memory_mb(),
        "versions": versions(),
        "machine": machine(),
        "notice": "Research use only. Not a medical device.",
    }
