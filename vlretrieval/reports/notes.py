"""What an archive is told about studies beside their pixels: whose they are, and what a radiologist wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DataError
from medseg.imaging.naming import scan_name
from vlretrieval.reports.table import IDS, PATIENTS, first_of, joined, patient_in, read_rows, text_columns


@dataclass(frozen=True)
class Note:
    """Of one study; empty where nothing is known."""

    patient: str = ""
    report: str = ""


def read_notes(path: Path) -> dict[str, Note]:
    """A CSV of studies' names, patients and reports -> {name without extension: note}.

    Raises:
        DataError: not there, no column of names, neither patients nor reports, or one name twice.
    """
    rows = read_rows(path)
    texts = text_columns(list(rows[0]))
    if not set(IDS) & set(rows[0]) or not (texts or set(PATIENTS) & set(rows[0])):
        wanted = f"{' or '.join(IDS)}, and report or {PATIENTS[0]}"
        raise DataError(f"{path.name} does not say which study a row is about.", advice=f"Columns: {wanted}.")
    notes: dict[str, Note] = {}
    for row in rows:
        name = scan_name(Path(first_of(row, IDS)))
        if name in notes:
            raise DataError(f"{path.name} names the study {name} twice.")
        notes[name] = Note(first_of(row, PATIENTS) or patient_in(name), joined(row, texts))
    return notes
