"""Some cases of a data set, or all of them split anew: an index with links to the same files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from medseg.imaging.emit import emit_json
from medseg.training.cases import CaseFiles, Dataset
from medseg.training.links import INDEX, link, sweep


def write_subset(dataset: Dataset, folder: Path, splits: Mapping[str, str]) -> Path:
    """Write an index of the cases that `splits` names, each in the split given there; returns the index.

    Raises:
        OutputError: the folder cannot hold links.
    """
    chosen = [case for case in dataset.cases if case.id in splits]
    for case in chosen:
        for file, role in ((case.ct, "ct"), (case.label, "label")):
            link(folder / splits[case.id] / f"{case.id}_{role}.nii.gz", file)
    sweep(folder, [(splits[case.id], case.id) for case in chosen])
    entries = [_entry(case, splits[case.id]) for case in chosen]
    return emit_json(folder / INDEX, {"labels": dataset.labels, "cases": entries})


def _entry(case: CaseFiles, split: str) -> dict[str, object]:
    kept = {"contoured": list(case.contoured), "notes": list(case.notes), "patient": case.patient}
    return {"id": case.id, "split": split, **kept}


def deal_folds(patients: Iterable[str], folds: int) -> dict[str, int]:
    """The fold in which each patient validates: dealt out in an order that names decide, so that none stays empty."""
    order = sorted(set(patients), key=lambda patient: hashlib.sha256(patient.encode()).digest())
    return {patient: number % folds for number, patient in enumerate(order)}
