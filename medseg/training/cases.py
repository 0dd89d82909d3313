"""Cases of a dataset: `index.json` -> scans and labels on the training grid, in memory.

`index.json` holds {"labels": {organ: value}, "cases": [{"id", "split", "contoured"}]};
beside it lie SPLIT/ID_ct.nii.gz and SPLIT/ID_label.nii.gz.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import DataError
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.imaging.volume import Array, Geometry, reorient
from medseg.preprocess.resample import grid_like, resample, resample_labels


@dataclass(frozen=True)
class CaseFiles:
    """One patient of the index: files, split and which organs were contoured."""

    id: str
    split: str
    ct: Path
    label: Path
    contoured: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """The label table of a dataset and its cases."""

    labels: dict[str, int]
    cases: tuple[CaseFiles, ...]

    def of(self, split: str) -> tuple[CaseFiles, ...]:
        return tuple(case for case in self.cases if case.split == split)


@dataclass(frozen=True)
class TrainingCase:
    """A case on the training grid, RAS order.

    Attributes:
        hu: int16 [i, j, k].
        labels: uint8 [i, j, k].
        known: bool [classes]; unknown organs may hide in the background.
        places: per class, voxel indices [n, 3] to centre patches on.
    """

    id: str
    hu: Array
    labels: Array
    known: Array
    places: dict[int, Array]


def read_index(path: Path) -> Dataset:
    """Read `index.json`.

    Raises:
        DataError: the file, a label table or a scan is missing, or a patient is in two splits.
    """
    if not path.is_file():
        raise DataError(f"No dataset index at {path}.", advice="Give `index:` in the config.")
    index = json.loads(path.read_text(encoding="utf-8"))
    labels = dict(index["labels"])
    cases = tuple(_case(path.parent, entry, labels) for entry in index["cases"])
    ids = [case.id for case in cases]
    if len(set(ids)) != len(ids):
        raise DataError(f"{path.name}: a patient is listed twice.")
    return Dataset(labels, cases)


def _case(root: Path, entry: dict[str, object], labels: dict[str, int]) -> CaseFiles:
    name, split = str(entry["id"]), str(entry["split"])
    folder = root / split
    contoured = tuple(str(organ) for organ in entry["contoured"])  # type: ignore[attr-defined]
    case = CaseFiles(name, split, folder / f"{name}_ct.nii.gz", folder / f"{name}_label.nii.gz", contoured)
    for file in (case.ct, case.label):
        if not file.is_file():
            raise DataError(f"Case {name}: {file.name} is missing.")
    unknown = set(contoured) - set(labels)
    if unknown:
        raise DataError(f"Case {name}: contoured organs {sorted(unknown)} are not in the label table.")
    return case


def load_case(case: CaseFiles, labels: dict[str, int], spacing_mm: tuple[float, float, float]) -> TrainingCase:
    """Read one case, turn it to RAS and resample it to the training grid."""
    volume = read_nifti(case.ct)
    label_map, geometry = read_label_map(case.label)
    if not geometry.matches(volume.geometry):
        raise DataError(f"Case {case.id}: scan and labels lie on different grids.")
    ornt, source = volume.geometry.to_canonical, volume.geometry.canonical()
    target = grid_like(source, spacing_mm)
    num_labels = max(labels.values()) + 1
    hu = resample(np.clip(reorient(volume.hu, ornt), -1024, 3071), source, target)
    fitted = resample_labels(reorient(label_map, ornt), source, target, num_labels)
    known = np.zeros(num_labels, dtype=bool)
    known[[0, *(labels[organ] for organ in case.contoured)]] = True
    return TrainingCase(case.id, np.round(hu).astype(np.int16), fitted, known, _places(hu, fitted, known))


def load_cases(
    cases: tuple[CaseFiles, ...], labels: dict[str, int], spacing_mm: tuple[float, float, float]
) -> Iterator[TrainingCase]:
    """Load many cases in parallel, in order."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield from pool.map(lambda case: load_case(case, labels, spacing_mm), cases)


def _places(hu: Array, labels: Array, known: Array) -> dict[int, Array]:
    places = {value: np.argwhere(labels == value).astype(np.int16) for value in np.flatnonzero(known)[1:]}
    places[0] = np.argwhere((hu > -200)[::2, ::2, ::2]).astype(np.int16) * 2
    return {int(value): where for value, where in places.items() if len(where)}
