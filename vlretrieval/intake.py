"""One study, looked at: read, segmented, measured, on the common grid. What indexing and training begin with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import medseg
from medseg.api import DEFAULT_MODEL
from medseg.imaging import Volume
from medseg.labels import LabelTable
from medseg.models.store import load_model
from medseg.results.segmentation import Segmentation
from medseg.runtime.options import Options
from medseg.runtime.progress import ProgressCallback
from vlretrieval.facts.kinds import Facts, read_facts
from vlretrieval.inputs import StudyInput, build_input
from vlretrieval.regions import find_regions
from vlretrieval.view import StudyView, build_view

LEAST_ML = 0.2  # less of an organ is no organ


@dataclass(frozen=True)
class Seen:
    """What was seen of a study.

    Attributes:
        id: of the scan's content.
        name: without extension; never a patient's name.
        view: the scan and its organs on the common grid.
        labels: of the organs.
        organs: that were found.
        regions: in view, the largest first.
        measures: ml and mean HU of each organ, and the scan's size.
        facts: what can be said by the segmentation.
        input: for the encoder.
        findings: what a reader should know.
    """

    id: str
    name: str
    view: StudyView
    labels: LabelTable
    organs: tuple[str, ...]
    regions: tuple[str, ...]
    measures: dict[str, float]
    facts: Facts
    input: StudyInput
    findings: tuple[str, ...]


def look_at(
    source: Path | Volume,
    *,
    segmenter: str = DEFAULT_MODEL,
    series: str | int | None = None,
    options: Options | None = None,
    progress: ProgressCallback | None = None,
) -> Seen:
    """Read and segment a study.

    Raises:
        MedsegError: as `medseg.segment` does.
    """
    result = medseg.segment(source, model=segmenter, series=series, options=options, progress=progress)
    return seen_of(result)


def seen_of(result: Segmentation) -> Seen:
    """What is seen of a study that has been segmented already."""
    volume = result.volume
    view = build_view(volume, result.mask, result.labels.names)
    rows = {row.organ: row for row in result.measurements}
    organs = tuple(name for name, row in rows.items() if row.volume_ml >= LEAST_ML)
    entry, regions = build_input(view), find_regions(view, organs)
    return Seen(
        id=content_id(volume),
        name=volume.name,
        view=view,
        labels=result.labels,
        organs=organs,
        regions=regions,
        measures=_measures(result, organs, view),
        facts=read_facts(entry.profile, head_neck="head_neck" in regions),
        input=entry,
        findings=tuple(str(finding) for finding in result.findings),
    )


def content_id(volume: Volume) -> str:
    """Of the bytes that were read, or of the voxels where there were none."""
    digest = volume.sha256 or hashlib.sha256(volume.hu.tobytes() + volume.affine.tobytes()).hexdigest()
    return digest[:32]


def _measures(result: Segmentation, organs: tuple[str, ...], view: StudyView) -> dict[str, float]:
    measures = {"length_mm": view.extent_mm[2], "slice_mm": view.spacing_mm[2], "field_mm": view.extent_mm[0]}
    for row in result.measurements:
        if row.organ in organs:
            measures[f"{row.organ}_ml"] = row.volume_ml
            measures[f"{row.organ}_hu"] = row.mean_hu or 0.0
    return {name: round(float(value), 2) for name, value in measures.items()}


def segmenter_id(name: str) -> tuple[str, LabelTable]:
    """name@version and digest of a segmenter, and its labels.

    Raises:
        ModelError: unknown or damaged.
    """
    package = load_model(name)
    return f"{package.card.id}:{package.sha256[:12]}", package.card.label_table
