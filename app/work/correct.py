"""A draft becomes a new version of the result, and a reviewed result becomes a case to train on."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.work.reading import read
from app.work.segment import SHOWN, keep_for_page
from medseg.errors import DataError
from medseg.imaging import Volume
from medseg.imaging.emit import emit_json
from medseg.imaging.nifti import write_label_map, write_scan
from medseg.imaging.volume import Array, Finding, restore_orientation
from medseg.jobs.request import JobRequest
from medseg.labels import LabelTable
from medseg.preprocess.restore import LabelMap
from medseg.results.load import load_result
from medseg.results.measure import measure
from medseg.results.segmentation import Segmentation
from medseg.results.verdict import WHY_EMPTY, verdict_of, why_empty
from medseg.runtime.lock import locked
from medseg.runtime.progress import Progress, ProgressCallback
from medseg.runtime.provenance import now


def correct(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Write the draft as a result of its own into `request.out`; the one that it began with stays.

    `extra` holds `result` (the folder that was corrected), `draft` (its mask in canonical order), `version` and
    `organs` (names of those that were touched).
    """
    progress(Progress("read", 0.1, "Reading the scan"))
    volume = read(request)
    before = load_result(Path(request.extra["result"]), volume)
    mask = _stored(np.load(request.extra["draft"]), volume)
    progress(Progress("measure", 0.4, "Measuring"))
    result = corrected(before, mask, request.extra["version"], request.extra["organs"])
    progress(Progress("save", 0.6, "Writing the result"))
    result.save(request.out)
    keep_for_page(request.out / SHOWN, result)
    return {"findings": [str(finding) for finding in result.findings]}


def _stored(mask: Array, volume: Volume) -> Array:
    return np.ascontiguousarray(restore_orientation(mask, volume.geometry.to_canonical))


def corrected(before: Segmentation, mask: Array, version: int, organs: list[str]) -> Segmentation:
    """The result after a person had a hand in it: measured anew; a drawn organ has no probability."""
    label_map = LabelMap(mask, np.zeros_like(mask), before.volume.geometry)
    old = {row.organ: row for row in before.measurements}
    rows = tuple(
        row if row.organ in organs else replace(row, mean_probability=old[row.organ].mean_probability)
        for row in measure(label_map, before.volume, before.labels)
    )
    earlier = before.run.get("corrected", {}).get("organs", [])
    facts = {"version": version, "organs": sorted({*organs, *earlier}), "at": now()}
    run = before.run | {"corrected": facts, "verdict": verdict_of(mask)}
    findings = still_true(before.findings, mask, before.labels)
    return replace(before, mask=mask, measurements=rows, findings=findings, run=run)


def still_true(said: tuple[Finding, ...], mask: Array, labels: LabelTable) -> tuple[Finding, ...]:
    """What was said, without what a corrected mask contradicts; and why it is empty, where it is now."""
    there = tuple(f"{label.title}: " for label in labels if (mask == label.value).any())
    wrong = WHY_EMPTY if there else ()
    kept = tuple(
        finding
        for finding in said
        if finding.code not in wrong and not (finding.code == "organ_not_found" and finding.message.startswith(there))
    )
    return (*kept, *why_empty(mask, labels, kept))


def hand_to_training(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Add the scan and its mask to the training folder `extra["folder"]`, as a case of its `index.json`.

    `extra["organs"]` are those that a person has looked at: they count as contoured, the others as unknown.

    Raises:
        DataError: the folder's labels have another number for one of the organs.
    """
    volume = read(request)
    result = load_result(Path(request.extra["result"]), volume)
    folder, organs = Path(request.extra["folder"]), list(request.extra["organs"])
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        index = _index(folder, result.labels.names)
        case = f"case-{secrets.token_hex(6)}"
        kept = np.where(np.isin(result.mask, [result.labels[name].value for name in organs]), result.mask, 0)
        write_scan(folder / "train" / f"{case}_ct.nii.gz", volume)
        write_label_map(folder / "train" / f"{case}_label.nii.gz", kept, volume.geometry)
        index["cases"].append({"id": case, "split": "train", "contoured": organs})
        emit_json(folder / "index.json", index)
    emit_json(request.out / "case.json", {"case": case, "folder": str(folder)})
    return {}


def _index(folder: Path, names: dict[str, int]) -> dict[str, Any]:
    """The index of the folder, its labels joined by those of the result."""
    path = folder / "index.json"
    index: dict[str, Any] = {"labels": {}, "cases": []}
    if path.is_file():
        index = json.loads(path.read_text("utf-8"))
    for name, value in names.items():
        other = next((organ for organ, number in index["labels"].items() if number == value), name)
        if index["labels"].get(name, value) != value or other != name:
            raise DataError(
                f"{folder}: its label {value} is {other!r}, and {name!r} here.",
                advice="Use a training folder of its own for each model.",
            )
    return index | {"labels": index["labels"] | names}
