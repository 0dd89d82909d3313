"""Data sets of others: nnU-Net v2 folders and MSD/MONAI `dataset.json` become an index of ours, by links.

DICOM studies with contours are converted (see `studies`).

`adopt` writes `index.json` with SPLIT/ID_ct.nii.gz and SPLIT/ID_label.nii.gz beside it as links to the files, so that
everything behind reads one format. The data are never changed, and copied only where their labels are not numbered
1, 2, 3 ..., as the channels of a network are: then the labels are written anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medseg.errors import DataError
from medseg.imaging.emit import emit_json
from medseg.sides import tidy
from medseg.training.links import INDEX, link, require_ours, sweep
from medseg.training.renumber import compact, is_of, write_renumbered
from medseg.training.studies import adopt_studies, find_studies

EVERY = 5  # without a split of its own, every fifth case validates
_NIFTI = (".nii.gz", ".nii")
WANTED = (
    "Give an index.json, an nnU-Net v2 dataset folder, an MSD or MONAI dataset.json, or a folder of DICOM studies with "
    "RTSTRUCT or SEG."
)


@dataclass(frozen=True)
class ForeignCase:
    """A scan, its labels, and the split that it belongs to ("" where the data set does not say)."""

    id: str
    ct: Path
    label: Path
    split: str = ""


class _Fold(BaseModel):
    """One of nnU-Net's `splits_final.json`."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def locate(path: Path) -> tuple[Path, bool]:
    """What describes the data set at `path` (a file or folder), and whether it is an index of ours.

    A folder without a description is taken for DICOM studies, if it holds folders or zips.

    Raises:
        DataError: there is none.
    """
    for place in (path, path / "index.json", path / "dataset.json"):
        if place.is_file():
            return place, "cases" in _read(place)
    cases_of_ours = any((path / "train").glob("*_ct.nii.gz"))  # folders of splits: no studies, the index is missing
    if find_studies(path) and not cases_of_ours:
        return path, False
    if path.is_dir():
        raise DataError(
            f"{path} is there, but nothing describes it: no index.json, no dataset.json, no DICOM studies.",
            advice="Write an index.json (see docs/DATA.md).",
        )
    raise DataError(f"There is nothing at {path}.", advice=WANTED)


def adopt(description: Path, folder: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write an index for another tool's data set; returns the index.

    Args:
        description: `dataset.json` of nnU-Net v2, MSD or MONAI, or a folder or `dataset.json` of DICOM studies.
        folder: gets index.json and links to the files, or what becomes of DICOM studies.
        say: told of each study that is converted.

    Raises:
        DataError: several channels, regions, files that are missing or not NIfTI, a count or a split that names others.
        ConfigError: the folder holds a data set of its own.
        OutputError: the folder cannot hold links.
    """
    require_ours(folder)
    if description.is_dir() or "studies" in _read(description):
        return adopt_studies(description, folder, say)
    content, root = _read(description), description.parent
    labels = _labels(content, description)
    cases = _listed(content, root, description) if "training" in content else _nnunet(content, root, description)
    cases, left_out = _split(sorted(cases, key=lambda case: case.id), root)
    if not cases:
        raise DataError(f"{description} names no training cases.")
    about = {"left_out": left_out, "source": str(description.resolve())}
    return _write_index(folder, labels, cases, about)


def _write_index(folder: Path, labels: Mapping[str, int], cases: list[ForeignCase], about: dict[str, Any]) -> Path:
    index, numbers = folder / INDEX, compact(labels)
    numbered = [[old, new] for old, new in numbers.items()]
    if index.is_file() and _read(index).get("numbered") != numbered:
        index.unlink()  # label maps beside it hold other numbers: if this ends on the way, none of them is believed
    for case in cases:
        _take(case, folder / case.split, numbers, again=index.is_file())
    sweep(folder, [(case.split, case.id) for case in cases])
    entries = [{"id": case.id, "split": case.split, "contoured": list(labels)} for case in cases]
    values = {organ: numbers[value] for organ, value in labels.items()}
    return emit_json(index, {"labels": values, "cases": entries, "numbered": numbered, **about})


def _take(case: ForeignCase, folder: Path, numbers: Mapping[int, int], *, again: bool) -> None:
    """Links to the case's files; its labels with other numbers where theirs are not a network's."""
    for file in (case.ct, case.label):
        _check_file(case, file)
    link(folder / f"{case.id}_ct.nii.gz", case.ct)
    label = folder / f"{case.id}_label.nii.gz"
    if all(old == new for old, new in numbers.items()):
        link(label, case.label)
    elif not (again and is_of(case.label, label)):
        write_renumbered(case.id, case.label, label, numbers)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:  # a scan, most likely
        raise DataError(f"{path} is no description of a data set: it is no text.", advice=WANTED) from error
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is no JSON: {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is no description of a data set: an object is needed.")
    return content


def _labels(content: Mapping[str, Any], path: Path) -> dict[str, int]:
    """{organ: value} without background, from nnU-Net's {name: value} or MSD's {value: name}."""
    given = content.get("labels")
    if not isinstance(given, dict):
        raise DataError(f"{path} has no `labels`.", advice='Add {"labels": {"background": 0, "liver": 1}}.')
    pairs = given.items() if not all(str(key).isdigit() for key in given) else [(v, k) for k, v in given.items()]
    labels: dict[str, int] = {}
    for name, value in pairs:
        if isinstance(value, list):
            raise DataError(f"{path}: {name} is a region of several labels.", advice="Give every label a name.")
        if not str(value).isdigit():
            raise DataError(f"{path}: {name} has the value {value!r}, which is no label.")
        if str(name).lower() == "ignore":
            raise DataError(f"{path}: an ignore label is not supported.", advice="Relabel these voxels.")
        if int(value) > 0:
            labels[_named(str(name), path)] = int(value)
    if len(labels) != len({int(value) for _, value in pairs} - {0}):
        raise DataError(f"{path}: two labels have one name or one value.")
    return labels


def _named(name: str, path: Path) -> str:
    if not (organ := tidy(name)):
        raise DataError(f"{path}: the label {name!r} is no name.", advice="Name it with letters.")
    return organ


def _nnunet(content: Mapping[str, Any], root: Path, path: Path) -> list[ForeignCase]:
    channels = content.get("channel_names", content.get("modality", {"0": "CT"}))
    count = len(channels) if isinstance(channels, dict) else "no"
    if count != 1:
        raise DataError(f"{path}: {count} channels; one CT a case is needed.")
    ending = str(content.get("file_ending", ".nii.gz"))
    labels = sorted(file for file in (root / "labelsTr").glob(f"*{ending}") if not file.name.startswith("."))
    names = [file.name.removesuffix(ending) for file in labels]
    said = content.get("numTraining", len(names))
    if said != len(names):
        raise DataError(
            f"{path} counts {said} training cases; labelsTr holds {len(names)} that end in {ending}.",
            advice="Copy what is missing, or mend `numTraining`.",
        )
    scans = [root / "imagesTr" / f"{name}_0000{ending}" for name in names]
    return [ForeignCase(*each) for each in zip(names, scans, labels, strict=True)]


def _listed(content: Mapping[str, Any], root: Path, path: Path) -> list[ForeignCase]:
    """MSD's and MONAI's lists of {"image", "label"}."""
    named = content.get("validation", [])
    split = {"training": "train" if named else "", "validation": "validation"}
    try:
        rows = [(row, split[key]) for key in split for row in content.get(key, [])]
        files = [(root / row["image"], root / row["label"], part) for row, part in rows]
    except (TypeError, KeyError) as error:
        raise DataError(f"{path}: every training case needs one `image` and one `label`.") from error
    names = [_stem(label) for _, label, _ in files]
    if len(set(names)) < len(names):  # every case in a folder of its own
        names = [f"{label.parent.name}_{_stem(label)}" for _, label, _ in files]
    return [ForeignCase(name, *each) for name, each in zip(names, files, strict=True)]


def _stem(file: Path) -> str:
    name = file.name
    for ending in _NIFTI:
        name = name.removesuffix(ending)
    return name


def _split(cases: list[ForeignCase], root: Path) -> tuple[list[ForeignCase], list[dict[str, Any]]]:
    """By the data set's own split, nnU-Net's first fold, or every fifth case; and cases that the fold leaves out."""
    if all(case.split for case in cases):
        return cases, []
    folds = root / "splits_final.json"
    if folds.is_file():
        sides = _first_fold(folds, {case.id for case in cases})
    else:
        sides = {case.id: "train" if number % EVERY < EVERY - 1 else "validation" for number, case in enumerate(cases)}
    reason = f"neither trains nor validates in the first fold of {folds.name}."
    left_out = [{"id": c.id, "reason": reason, "fault": False} for c in cases if c.id not in sides]
    return [replace(case, split=sides[case.id]) for case in cases if case.id in sides], left_out


def _first_fold(path: Path, there: Set[str]) -> dict[str, str]:
    """Case -> split. A case that a fold leaves out is held back by somebody: it must not be trained on."""
    try:
        fold = _Fold.model_validate(json.loads(path.read_text(encoding="utf-8"))[0])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path} is no list of nnU-Net's folds: {type(error).__name__}.",
            advice='Each is {"train": [names], "val": [names]}. Without the file, every fifth case validates.',
        ) from error
    if strangers := sorted({*fold.train, *fold.val} - there):
        raise DataError(f"{path}: the first fold names cases that are not there: {', '.join(strangers)}.")
    if both := sorted(set(fold.train) & set(fold.val)):
        raise DataError(f"{path}: the first fold trains on cases that validate: {', '.join(both)}.")
    return dict.fromkeys(fold.train, "train") | dict.fromkeys(fold.val, "validation")


def _check_file(case: ForeignCase, file: Path) -> None:
    if not file.is_file():
        raise DataError(f"Case {case.id}: {file} is missing.")
    if not file.name.endswith(_NIFTI):
        raise DataError(f"Case {case.id}: {file.name} is no NIfTI.", advice="Convert scans and labels to .nii.gz.")
