"""A folder of DICOM studies with RTSTRUCT or DICOM SEG becomes an index of ours.

Every study (a folder or a zip) is read once; its scan and one label map are written on the scan's own grid. A study
shows the organs that were drawn on it, and the others stay unknown there. Where structures overlap, the smaller one
keeps the voxels: an outline of the body leaves the organs in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.errors import DataError, InputError, MedsegError, NoReferenceError, ResourceError, WorkerError
from medseg.imaging.emit import emit_json
from medseg.imaging.naming import scan_name
from medseg.imaging.nifti import write_label_map, write_scan
from medseg.imaging.structures import overlap_findings
from medseg.imaging.study import DrawnStudy, read_study
from medseg.imaging.volume import Array
from medseg.sides import tidy
from medseg.training.links import INDEX, sweep

EVERY = 5  # without a split of its own, every fifth patient validates; the last of three or four


class _Description(BaseModel):
    """`dataset.json` of DICOM studies; without one, every structure of every study is an organ.

    `studies` is their folder, seen from the file. `structures` names organs and what they are called in the drawings;
    others are not read. `validation` names studies; without it every fifth patient validates.
    """

    model_config = ConfigDict(extra="forbid")
    studies: Path
    structures: dict[str, str | tuple[str, ...]] | None = None
    validation: tuple[str, ...] = ()


@dataclass
class _Case:
    id: str
    patient: str
    contoured: list[str]
    notes: list[str] = field(default_factory=list)


def find_studies(folder: Path) -> list[Path]:
    """Folders and zips in a folder, by name: each one study."""
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir())
    return [e for e in entries if not e.name.startswith(".") and (e.is_dir() or e.suffix.lower() == ".zip")]


def adopt_studies(source: Path, folder: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write an index of the studies that `source` names; returns the index.

    What was written before for the same files and settings is kept, unless a study failed for a reason that may pass.

    Args:
        source: the folder of studies, or a `dataset.json` with the key `studies`.
        folder: gets index.json, scans and label maps.
        say: told of each study.

    Raises:
        DataError: a bad description, no study, two of one name, or more than 255 organs.
        OutputError: a file could not be written.
    """
    description, root = _describe(source)
    studies = find_studies(root)
    if not studies:
        raise DataError(f"No study in {root}.", advice="Give a folder whose folders or zips are DICOM studies.")
    if len({scan_name(study) for study in studies}) < len(studies):
        raise DataError(f"{root}: a folder and a zip have the same name.", advice="Give each a name of its own.")
    index, state = folder / INDEX, _state(description, studies)
    if index.is_file() and json.loads(index.read_bytes()).get("made_from") == state:
        return index
    values: dict[str, int] = {}
    cases, left_out, passing = [], [], False
    for number, study in enumerate(studies, 1):
        say(f"reading study {number}/{len(studies)}  {study.name}")
        try:
            cases.append(_convert(study, folder, description, values))
        except (DataError, InputError, ResourceError, WorkerError) as error:
            left_out.append(_left_out(study, error))
            passing |= isinstance(error, (ResourceError, WorkerError))
    splits = _split(cases, description, root, {scan_name(Path(str(row["id"]))) for row in left_out})
    sweep(folder, [(splits[case.id], case.id) for case in cases])
    for case in cases:
        _move(folder, case.id, splits[case.id])
    about = {"left_out": left_out, "made_from": "" if passing else state, "source": str(source.resolve())}
    return emit_json(index, {"labels": values, "cases": _entries(cases, splits), **about})


def _left_out(study: Path, error: MedsegError) -> dict[str, Any]:
    reason = str(error).removeprefix(f"{study.name}: ")
    return {"id": study.name, "reason": reason, "fault": not isinstance(error, NoReferenceError)}


def _describe(source: Path) -> tuple[_Description, Path]:
    if source.is_dir():
        return _Description(studies=source), source
    try:
        description = _Description.model_validate_json(source.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(f"{source}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}.") from error
    return description, source.parent / description.studies


def _state(description: _Description, studies: Sequence[Path]) -> str:
    """Changes with any file's name, size or time, and with the description."""
    files = [path for study in studies for path in ([study] if study.is_file() else sorted(study.rglob("*")))]
    about = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files if file.is_file() for stat in [file.stat()]]
    text = json.dumps([description.model_dump(mode="json"), about])
    return hashlib.sha256(text.encode()).hexdigest()


def _convert(path: Path, folder: Path, description: _Description, values: dict[str, int]) -> _Case:
    """Write one study's scan and labels into `folder`; organs that are new get the next value."""
    study = read_study(path)
    masks = _masks(path, study, description)
    labels, notes = _draw(path, masks, values)
    name = scan_name(path)
    write_scan(_waiting(folder, name, "ct"), study.volume)
    write_label_map(_waiting(folder, name, "label"), labels, study.volume.geometry)
    said = [str(finding) for finding in (*study.volume.findings, *study.findings)]
    return _Case(name, study.patient, list(masks), said + notes)


def _masks(path: Path, study: DrawnStudy, description: _Description) -> dict[str, Array]:
    """Organ -> mask, of those that have voxels; the smallest comes last."""
    found: dict[str, Array] = {}
    for structure in study.structures:
        organ = _organ(structure.name, description.structures)
        if organ is None or not (mask := structure.mask).any():
            continue
        if not organ:  # an empty one with such a name is a line between others in a list
            raise DataError(f"{path.name}: {structure.name!r} is no name.", advice="Name it in `structures`.")
        if organ in found:
            raise DataError(f"{path.name}: two structures are called {organ}.", advice="Name one in `structures`.")
        found[organ] = mask
    if not found:
        known = ", ".join(structure.name for structure in study.structures) or "none"
        raise NoReferenceError(f"{path.name}: no structure of those wanted; drawn are: {known}.")
    return dict(sorted(found.items(), key=lambda pair: (-int(pair[1].sum()), pair[0])))


def _organ(name: str, wanted: Mapping[str, str | tuple[str, ...]] | None) -> str | None:
    if wanted is None:
        return tidy(name)
    for organ, names in wanted.items():
        if name in ((names,) if isinstance(names, str) else names):
            return organ
    return None


def _draw(path: Path, masks: Mapping[str, Array], values: dict[str, int]) -> tuple[Array, list[str]]:
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    claimed = 0
    for organ, mask in masks.items():
        value = values.setdefault(organ, len(values) + 1)
        if value > 255:
            raise DataError(f"{path.name}: more than 255 organs.", advice="Name those to learn in `structures`.")
        claimed += int((labels[mask] > 0).sum())
        labels[mask] = value
    if gone := sorted(organ for organ in masks if not (labels == values[organ]).any()):
        raise DataError(f"{path.name}: wholly covered by smaller structures: {', '.join(gone)}.")
    notes = [finding.message.replace("the first", "the smaller") for finding in overlap_findings(claimed, list(masks))]
    return labels, notes


def _split(cases: Sequence[_Case], description: _Description, root: Path, left_out: Set[str]) -> dict[str, str]:
    """By patient: all studies of one lie on one side. Whoever was left out has a reason of their own."""
    if strangers := set(description.validation) - {case.id for case in cases} - left_out:
        raise DataError(f"validation names studies that are not in {root}: {', '.join(sorted(strangers))}.")
    patients = list(dict.fromkeys(case.patient or case.id for case in cases))
    chosen = {patient for number, patient in enumerate(patients) if number % EVERY == EVERY - 1}
    chosen = chosen or set(patients[2:][-1:])  # three or four patients: the last
    if description.validation:
        chosen = {case.patient or case.id for case in cases if case.id in description.validation}
    return {case.id: "validation" if (case.patient or case.id) in chosen else "train" for case in cases}


def _entries(cases: Sequence[_Case], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """For the index; a patient is named by the first of their studies."""
    first: dict[str, str] = {}
    for case in cases:
        first.setdefault(case.patient or case.id, case.id)
    rows = [(case, first[case.patient or case.id]) for case in cases]
    return [
        {"id": c.id, "split": splits[c.id], "contoured": c.contoured, "notes": c.notes, "patient": patient}
        for c, patient in rows
    ]


def _waiting(folder: Path, name: str, role: str) -> Path:
    return folder / "unsorted" / f"{name}_{role}.nii.gz"


def _move(folder: Path, name: str, split: str) -> None:
    for role in ("ct", "label"):
        waiting = _waiting(folder, name, role)
        (folder / split).mkdir(parents=True, exist_ok=True)
        waiting.replace(folder / split / waiting.name)
