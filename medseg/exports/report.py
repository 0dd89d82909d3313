"""The report of a result: what it says, before anybody decides how it looks (`report_html`, `report_pdf`)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from medseg.exports.words import Language, explain, organ_name, say
from medseg.exports.words.numbers import volume_text
from medseg.imaging.emit import emit_bytes, emit_text
from medseg.imaging.volume import Finding, Volume, reorient
from medseg.models.card import ModelCard
from medseg.results.measure import Measurement
from medseg.results.pictures import AXIS, PLANES, Look, Plane, Scene, draw, find_middles, to_png
from medseg.results.preview import busiest_slices
from medseg.results.references import Reference, reference_for
from medseg.results.segmentation import Segmentation
from medseg.runtime.provenance import versions

COLUMNS = ("organ", "volume", "reference", "hu", "extent", "slices", "edge", "certainty")
WINDOW = (60.0, 400.0)
_SIZE = 900


@dataclass(frozen=True)
class Picture:
    """A plane with its organs, as PNG, and what is below it."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Row:
    """An organ: its colour and the words of the columns."""

    colour: tuple[int, int, int]
    cells: tuple[str, ...]
    found: bool


@dataclass(frozen=True)
class Report:
    """Everything that a report says, in one language."""

    language: Language
    facts: tuple[tuple[str, str], ...]
    findings: tuple[str, ...]
    rows: tuple[Row, ...]
    sources: tuple[str, ...]
    pictures: tuple[Picture, ...]
    limits: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]

    def say(self, key: str, **values: object) -> str:
        """The words of that key, in the report's language."""
        return say(self.language, key, **values)


def write_html_report(
    path: Path, result: Segmentation, card: ModelCard | None = None, language: Language = "en"
) -> Path:
    """Write one self-contained page: no script, no request, prints well.

    Raises:
        OutputError: it could not be written.
    """
    from medseg.exports.report_html import render

    return emit_text(path, render(build_report(result, card, language)))


def write_pdf_report(
    path: Path, result: Segmentation, card: ModelCard | None = None, language: Language = "en"
) -> Path:
    """Write the report as PDF (A4).

    Raises:
        OutputError: it could not be written.
        ConfigError: reportlab is not installed.
    """
    from medseg.exports.report_pdf import render

    return emit_bytes(path, render(build_report(result, card, language)))


def build_report(result: Segmentation, card: ModelCard | None = None, language: Language = "en") -> Report:
    """Collect what a report says.

    Args:
        result: the study.
        card: of its model, for limits and training percentiles; None where it is not at hand.
        language: of the words. Findings are said as the engine says them, with their translation before them
            where there is one; limits in either language.
    """
    references = {row.organ: reference_for(row.organ, card) for row in result.measurements}
    colours = {label.name: label.colour for label in result.labels}
    sources = list(dict.fromkeys(reference.source for reference in references.values() if reference))
    ranges = {organ: _range(language, reference, sources) for organ, reference in references.items()}
    rows = [_row(language, row, colours[row.organ], ranges[row.organ]) for row in result.measurements]
    return Report(
        language=language,
        facts=tuple(_facts(language, result)),
        findings=tuple(_finding(language, finding) for finding in result.findings),
        rows=tuple(rows),
        sources=tuple(f"[{number}] {source}" for number, source in enumerate(sources, 1)),
        pictures=tuple(_pictures(language, result)),
        limits=tuple(explain("card", limit, language) or limit for limit in card.limits) if card is not None else (),
        provenance=tuple(_provenance(language, result)),
    )


def _facts(language: Language, result: Segmentation) -> list[tuple[str, str]]:
    run = result.run
    model = run.get("model", {})
    facts = [
        (say(language, "study"), str(run.get("study", result.volume.name))),
        (say(language, "grid"), _grid(language, result.volume)),
        (say(language, "model"), f"{model.get('name', '?')} {model.get('version', '')}".strip()),
        (say(language, "computed"), str(run.get("created", ""))),
        (say(language, "made"), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")),
    ]
    if "corrected" in run:
        facts.insert(3, (say(language, "corrected"), _correction(language, run["corrected"])))
    return facts


def _grid(language: Language, volume: Volume) -> str:
    (i, j, k), steps = volume.geometry.shape, [f"{step:.2f}" for step in volume.spacing_mm]
    a, b, c = steps
    return say(language, "grid.text", i=i, j=j, k=k, a=a, b=b, c=c, orientation=volume.geometry.orientation)


def _correction(language: Language, facts: dict[str, Any]) -> str:
    organs = ", ".join(organ_name(name, language) for name in facts.get("organs", []))
    return say(language, "corrected.text", version=facts.get("version", "?"), organs=organs or "–")


def _finding(language: Language, finding: Finding) -> str:
    words = explain("finding", finding.code, language)
    return f"{words} {finding.message}" if words else finding.message


def _row(language: Language, row: Measurement, colour: tuple[int, int, int], reference: str) -> Row:
    none, name = say(language, "none"), organ_name(row.organ, language)
    if row.volume_ml == 0:
        return Row(colour, (name, say(language, "absent"), reference, *[none] * 5), False)
    hu = none if row.mean_hu is None else f"{row.mean_hu:.0f} ± {row.sd_hu or 0:.0f}".replace("-", "−")
    cells = (
        name,
        volume_text(row.volume_ml),
        reference,
        hu,
        " × ".join(f"{side:.0f}" for side in row.extent_mm),
        str(row.slices),
        say(language, "edge.yes" if row.touches_edge else "edge.no"),
        none if row.mean_probability is None else f"{row.mean_probability:.2f}",
    )
    return Row(colour, cells, True)


def _range(language: Language, reference: Reference | None, sources: list[str]) -> str:
    if reference is None:
        return say(language, "none")
    number = sources.index(reference.source) + 1
    return f"{volume_text(reference.low_ml)}–{volume_text(reference.high_ml)} [{number}]"


def _pictures(language: Language, result: Segmentation) -> list[Picture]:
    scene = cropped(scene_of(result))
    position = busiest_slices(scene.mask)
    look = Look(WINDOW, {label.value: label.colour for label in result.labels}, size=_SIZE, lines=False)
    return [
        Picture(_caption(language, scene, plane, position), to_png(draw(scene, plane, position, look)))
        for plane in PLANES
    ]


def scene_of(result: Segmentation) -> Scene:
    """Scan and mask in canonical order, for drawing."""
    geometry = result.volume.geometry
    mask = np.asarray(reorient(result.mask, geometry.to_canonical))
    hu = reorient(result.volume.hu, geometry.to_canonical)
    return Scene(hu, mask, geometry.canonical().spacing_mm, find_middles(mask))


def cropped(scene: Scene, margin_mm: float = 60.0) -> Scene:
    """The part around the organs: a report's pictures are small, and air and couch say nothing."""
    if not scene.mask.any():
        return scene
    box = ndimage.find_objects((scene.mask > 0).astype(np.uint8))[0]
    parts = []
    for side, size, step in zip(box, scene.shape, scene.spacing_mm, strict=True):
        margin = round(margin_mm / step)
        parts.append(slice(max(0, side.start - margin), min(size, side.stop + margin)))
    mask = scene.mask[tuple(parts)]
    return Scene(scene.hu[tuple(parts)], mask, scene.spacing_mm, find_middles(mask), tuple(p.start for p in parts))


def _caption(language: Language, scene: Scene, plane: Plane, position: Sequence[int]) -> str:
    axis = AXIS[plane]
    words = say(language, f"plane.{plane}")
    return say(language, "plane.slice", plane=words, index=scene.corner[axis] + position[axis] + 1)


def _provenance(language: Language, result: Segmentation) -> list[tuple[str, str]]:
    run = result.run
    return [
        (say(language, "sha.scan"), str(run.get("input", {}).get("sha256", result.volume.sha256))),
        (say(language, "sha.model"), str(run.get("model", {}).get("sha256", ""))),
        (say(language, "software"), f"medseg {run.get('versions', versions()).get('medseg', '')}"),
    ]
