"""What an archive is told about studies beside their pixels: whose they are, and what a radiologist wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DataError
from medseg.imaging.naming import scan_name
from medseg.jobs.manifest import identity
from vlretrieval.reports.table import IDS, PATIENTS, first_of, joined, patient_in, read_rows, text_columns


@dataclass(frozen=True)
class Note:
    """Of one study; empty where nothing is known. `file` is its file or folder as the note spells it."""

    patient: str = ""
    report: str = ""
    file: str = ""


def read_notes(path: Path) -> dict[str, Note]:
    """A CSV of studies' names, patients and reports -> {name or path, without extension: note}.

    Raises:
        DataError: not there, no column of names, neither patients nor reports, a row without a name, or a name twice.
    """
    rows = read_rows(path)
    texts = text_columns(list(rows[0]))
    if not set(IDS) & set(rows[0]) or not (texts or set(PATIENTS) & set(rows[0])):
        wanted = f"{' or '.join(IDS)}, and report or {PATIENTS[0]}"
        raise DataError(f"{path.name} does not say which study a row is about.", advice=f"Columns: {wanted}.")
    notes: dict[str, Note] = {}
    for number, row in enumerate(rows, 1):
        study = Path(first_of(row, IDS))
        if not study.name:
            raise DataError(f"{path.name}: row {number} names no study.", advice="Name it, or remove the row.")
        name = scan_name(study)
        about = str(study.parent / name)
        if about in notes:
            raise DataError(f"{path.name} names the study {about} twice.")
        notes[about] = Note(first_of(row, PATIENTS) or patient_in(name), joined(row, texts), study.name)
    return notes


def match_notes(notes: Mapping[str, Note], studies: Sequence[Path]) -> tuple[dict[Path, Note], tuple[str, ...]]:
    """Notes by the studies that they are about, and the names of those that are about none.

    A name is that of a file or folder; with a `/` it is the end of a path.

    Raises:
        DataError: a note that could be about several studies, or two about one.
    """
    named: dict[str, list[Path]] = {}
    for study in studies:
        named.setdefault(scan_name(study), []).append(study)
    found: dict[Path, Note] = {}
    lost = []
    for about, note in notes.items():
        fitting = _fitting(about, note, named.get(Path(about).name, []))
        if twice := [study for study in fitting if study in found]:
            raise DataError(f"Two notes are about {twice[0]}.", advice="Leave one of them.")
        found |= dict.fromkeys(fitting, note)
        lost += [] if fitting else [about]
    return found, tuple(lost)


def _fitting(about: str, note: Note, studies: Sequence[Path]) -> list[Path]:
    folders = Path(about).parent.parts
    fitting = [study for study in studies if _folders(study, len(folders)) == folders]
    # A folder and a zip of it have one name but for the extension: the one that is spelt so is meant.
    fitting = [study for study in fitting if study.name == note.file] or fitting
    places = sorted({identity(study) for study in fitting})
    if len(places) > 1:
        raise DataError(
            f"The note on {about} could be about {len(places)} studies: {', '.join(places[:3])}.",
            advice="Name each by the end of its path in the notes, as in PATIENT/ct.nii.gz.",
        )
    return fitting


def _folders(study: Path, count: int) -> tuple[str, ...]:
    """The last folders of a study's path."""
    return Path(os.path.abspath(study)).parent.parts[-count:] if count else ()
