"""Cases of a dataset: `index.json` -> scans and labels on the training grid, in memory.

`index.json` holds {"labels": {organ: value}, "cases": [{"id", "split", "contoured"}]};
beside it lie SPLIT/ID_ct.nii.gz and SPLIT/ID_label.nii.gz.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.errors import DataError
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.imaging.volume import Array, Geometry, corner_distance, reorient
from medseg.preprocess.resample import grid_like, resample, resample_labels

SPLITS = ("train", "validation", "test")
CHECK = "`medseg train check` finds all such cases."
BODY_HU = -200  # background patches are centred on voxels above


class _Entry(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)
    id: str
    split: str
    contoured: tuple[str, ...]
    notes: tuple[str, ...] = ()
    patient: str = ""


class LeftOut(BaseModel):
    """A study that became no case: one that nothing is drawn on, or, where `fault`, one that cannot be used."""

    id: str
    reason: str
    fault: bool


class _Index(BaseModel):
    labels: dict[str, int]
    cases: tuple[_Entry, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class CaseFiles:
    """One case of the index: files, split, which organs were contoured, and what a reader should know.

    `patient` is the same for all cases of one patient, who must not stand on both sides of a split: the first one's id.
    """

    id: str
    split: str
    ct: Path
    label: Path
    contoured: tuple[str, ...]
    notes: tuple[str, ...] = ()
    patient: str = ""


@dataclass(frozen=True)
class Dataset:
    """The label table of a dataset, its cases, and the studies that became none."""

    labels: dict[str, int]
    cases: tuple[CaseFiles, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def patients(self) -> dict[str, str]:
        """Case -> patient."""
        return {case.id: case.patient for case in self.cases}

    def of(self, split: str) -> tuple[CaseFiles, ...]:
        return tuple(case for case in self.cases if case.split == split)


@dataclass(frozen=True)
class TrainingCase:
    """A case on the training grid, RAS order.

    Attributes:
        hu: int16 [i, j, k].
        labels: uint8 [i, j, k].
        known: bool [classes]; unknown organs may hide in the background: those that nobody contoured, and those too
            small for a voxel of this grid.
        places: per class, voxel indices [n, 3] to centre patches on.
    """

    id: str
    hu: Array
    labels: Array
    known: Array
    places: dict[int, Array]


def read_index(path: Path, *, gaps: bool = False) -> Dataset:
    """Read `index.json`.

    Args:
        path: the file.
        gaps: whether the organs' numbers may have some; a network's channels have none.

    Raises:
        DataError: the file or a scan is missing, it is no index, its organs are not numbered 1, 2, 3 ... and `gaps` are
            not allowed, a case names an organ that is not among them, or a patient is listed twice.
    """
    if not path.is_file():
        raise DataError(f"No dataset index at {path}.", advice="Give `index:` in the config.")
    index = _parse(path)
    _check_numbers(path, index.labels, gaps=gaps)
    cases = tuple(_case(path, entry, index.labels) for entry in index.cases)
    ids = [case.id for case in cases]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise DataError(f"{path.name}: listed twice: {', '.join(twice)}.", advice="A patient belongs to one split.")
    return Dataset(index.labels, cases, index.left_out)


def _parse(path: Path) -> _Index:
    try:
        return _Index.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise DataError(f"{path} is not a dataset index: {where} {fault['msg']}.") from error


def _check_numbers(path: Path, labels: dict[str, int], *, gaps: bool) -> None:
    """Said before hours of training instead of after."""
    if background := [organ for organ, value in labels.items() if value == 0]:
        raise DataError(
            f"{path}: {', '.join(background)} has the value 0, which means no organ.",
            advice="Leave background out of `labels`.",
        )
    if shared := [organ for organ, value in labels.items() if list(labels.values()).count(value) > 1]:
        given = ", ".join(f"{organ} {labels[organ]}" for organ in shared)
        raise DataError(f"{path}: two organs have one value: {given}.", advice="Give each organ a value of its own.")
    if not gaps and sorted(labels.values()) != list(range(1, len(labels) + 1)):
        given = ", ".join(f"{organ} {value}" for organ, value in labels.items())
        raise DataError(
            f"{path}: organs must be numbered 1, 2, 3 ... without a gap; they are: {given}.",
            advice="Renumber index and label maps, or describe the data as MSD's dataset.json: that may have gaps.",
        )


def _case(index: Path, entry: _Entry, labels: dict[str, int]) -> CaseFiles:
    name, folder = entry.id, index.parent / entry.split
    ct, label = folder / f"{name}_ct.nii.gz", folder / f"{name}_label.nii.gz"
    case = CaseFiles(name, entry.split, ct, label, entry.contoured, entry.notes, entry.patient or name)
    for file in (case.ct, case.label):
        if not file.is_file():
            raise DataError(
                f"Case {name}: {file} is missing.",
                advice=f"Its split {entry.split!r} is also the folder; the splits are {', '.join(SPLITS)}.",
            )
    if unknown := sorted(set(entry.contoured) - set(labels)):
        raise DataError(
            f"Case {name}: contoured organs are not in the label table: {', '.join(unknown)}.",
            advice=f"The organs of {index} are: {', '.join(labels)}.",
        )
    return case


def check_left_out(dataset: Dataset, say: Callable[[str], None]) -> None:
    """A study without contours is said and left out; one that cannot be used stops the run: somebody counts on it.

    Raises:
        DataError: there is one; says why.
    """
    for study in dataset.left_out:
        if study.fault:
            raise DataError(
                f"{study.id}: {study.reason}", advice="Mend it or move it away; `medseg train check` lists all of them."
            )
        say(f"left out: {study.id}: {study.reason}")


def load_case(case: CaseFiles, labels: dict[str, int], spacing_mm: tuple[float, float, float]) -> TrainingCase:
    """Read one case, turn it to RAS and resample it to the training grid.

    Raises:
        InputError: a file that cannot be read as CT or labels.
        DataError: grids differ, a value has no name, or the scan shows nobody.
    """
    volume = read_nifti(case.ct)
    label_map, geometry = read_label_map(case.label)
    require_one_grid(case, volume.geometry, geometry)
    drawn = {int(value) for value in np.unique(label_map)} - {0}
    if nameless := sorted(drawn - {*labels.values()}):
        raise DataError(f"Case {case.id}: label values {nameless} are not in the label table.")
    ornt, source = volume.geometry.to_canonical, volume.geometry.canonical()
    target = grid_like(source, spacing_mm)
    num_labels = max(labels.values()) + 1
    hu = resample(np.clip(reorient(volume.hu, ornt), -1024, 3071), source, target)
    fitted = resample_labels(reorient(label_map, ornt), source, target, num_labels)
    known = np.zeros(num_labels, dtype=bool)
    known[[0, *(labels[organ] for organ in case.contoured)]] = True
    known[sorted(drawn - {int(value) for value in np.unique(fitted)})] = False  # no voxel left, and yet not absent
    places = _places(hu, fitted, known)
    if 0 not in places:
        raise DataError(f"Case {case.id}: the scan holds nothing denser than {BODY_HU:g} HU, no body.")
    return TrainingCase(case.id, np.round(hu).astype(np.int16), fitted, known, places)


def require_one_grid(case: CaseFiles, scan: Geometry, labels: Geometry) -> None:
    """Refuse labels that do not lie on their scan.

    Raises:
        DataError: the grids differ; says how.
    """
    if not labels.matches(scan):
        raise DataError(
            f"Case {case.id}: {how_grids_differ(scan, labels)}",
            advice=f"Write {case.label} on the scan's grid, or leave the case out. {CHECK}",
        )


def how_grids_differ(scan: Geometry, labels: Geometry) -> str:
    """How two grids that do not match differ, as a sentence: in their voxels, or else by how many mm."""
    text = "scan and labels lie on different grids: "
    if scan.shape != labels.shape:
        return f"{text}{scan.shape} and {labels.shape} voxels."
    return f"{text}their corners lie up to {corner_distance(scan.affine, labels.affine, scan.shape):.3g} mm apart."


def load_cases(
    cases: tuple[CaseFiles, ...], labels: dict[str, int], spacing_mm: tuple[float, float, float]
) -> Iterator[TrainingCase]:
    """Load many cases in parallel, in order."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield from pool.map(lambda case: load_case(case, labels, spacing_mm), cases)


def _places(hu: Array, labels: Array, known: Array) -> dict[int, Array]:
    places = {value: np.argwhere(labels == value).astype(np.int16) for value in np.flatnonzero(known)[1:]}
    places[0] = np.argwhere((hu > BODY_HU)[::2, ::2, ::2]).astype(np.int16) * 2
    return {int(value): where for value, where in places.items() if len(where)}


def data_digest(cases: Sequence[TrainingCase]) -> str:
    """Of all that was learned from: scans and labels on the training grid, and what was contoured."""
    digest = hashlib.sha256()
    for case in cases:
        for array in (case.hu, case.labels, case.known):
            digest.update(f"{case.id} {array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
