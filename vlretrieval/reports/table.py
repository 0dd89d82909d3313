"""Reports and their findings from a CSV: one row a report, findings as columns of 0 and 1."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import DataError

# The first of these columns that a table has; words of several are put together.
TEXTS: tuple[tuple[str, ...], ...] = (
    ("report_text",),
    ("text",),
    ("report",),
    ("Findings_EN", "Impressions_EN"),
    ("findings", "impression"),
)
IDS = ("AccessionNo", "VolumeName", "study", "id", "name")
PATIENTS = ("patient", "PatientID", "patient_id")
UNKNOWN = -1
# CT-RATE's names: split, patient, scan, reconstruction.
_VOLUME = re.compile(r"((?:train|valid|test)_\d+)(?:_[a-z]+(?:_\d+)?)?(?:\.nii(?:\.gz)?)?", re.I)


@dataclass(frozen=True)
class ReportTable:
    """N reports.

    Attributes:
        ids, patients, texts: of the reports. Where no column names a report, its file and row do, so that it is nobody
            of another table.
        findings: names of the columns.
        labels: [N, F] 1 present, 0 absent, -1 unknown.
    """

    ids: tuple[str, ...]
    patients: tuple[str, ...]
    texts: tuple[str, ...]
    findings: tuple[str, ...]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> ReportTable:
        """Some of the reports."""
        chosen = [int(row) for row in rows]

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[row] for row in chosen)

        return ReportTable(
            pick(self.ids), pick(self.patients), pick(self.texts), self.findings, self.labels[chosen].copy()
        )


def read_reports(path: Path, *, findings: bool = True) -> ReportTable:
    """Read a CSV with a column of words and columns of findings.

    Args:
        path: of the CSV.
        findings: whether there have to be any.

    Raises:
        DataError: not there, no such columns, or no reports.
    """
    rows = read_rows(path)
    columns = list(rows[0])
    texts = text_columns(columns)
    if not texts:
        wanted = " or ".join("+".join(names) for names in TEXTS)
        raise DataError(f"{path.name} has no column of words: {wanted}.", advice=f"It has: {', '.join(columns[:8])}.")
    names = tuple(name for name in columns if name not in (*texts, *IDS, *PATIENTS) and _is_finding(rows, name))
    if findings and not names:
        raise DataError(f"{path.name} has no column of findings (0 and 1).")
    ids = tuple(first_of(row, IDS) or f"row {number} of {path.resolve()}" for number, row in enumerate(rows, 1))
    return ReportTable(
        ids,
        tuple(first_of(row, PATIENTS) or patient_in(name) or name for row, name in zip(rows, ids, strict=True)),
        tuple(joined(row, texts) for row in rows),
        names,
        np.array([[_label(row[name]) for name in names] for row in rows], dtype=np.int64).reshape(len(rows), -1),
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV; empty cells are empty texts.

    Raises:
        DataError: not there, no CSV, empty, or a row with more or fewer cells than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [_whole(row, f"{path.name}, line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name} cannot be read as CSV ({error}).") from error
    if not rows:
        raise DataError(f"{path.name} holds no reports.")
    return rows


def _whole(row: Mapping[str | None, str | list[str] | None], where: str) -> dict[str, str]:
    """The row, if it fills the header: behind a comma too many, every cell would stand under another's name."""
    if None in row or None in row.values():
        raise DataError(
            f"{where}: the row has {'more' if None in row else 'fewer'} cells than the header.",
            advice='A text that holds commas or line breaks stands between double quotes: "...".',
        )
    return {str(name): str(cell) for name, cell in row.items()}


def _is_finding(rows: Sequence[Mapping[str, str]], name: str) -> bool:
    values = {row[name].strip() for row in rows} - {""}
    return bool(values) and all(_number(value) in (0, 1, UNKNOWN) for value in values)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _label(value: str) -> int:
    return int(float(value)) if value.strip() else UNKNOWN


def first_of(row: Mapping[str, str], names: Sequence[str]) -> str:
    """What stands in the first of these columns that holds anything."""
    return next((row[name].strip() for name in names if row.get(name, "").strip()), "")


def patient_in(name: str) -> str:
    """The patient in a name of CT-RATE's kind (`valid_12_a_1.nii.gz`); empty for any other."""
    found = _VOLUME.fullmatch(name)
    return found[1].lower() if found else ""


def text_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of words; none where a table has none."""
    return next((names for names in TEXTS if set(names) <= set(columns)), ())


def joined(row: Mapping[str, str], columns: Sequence[str]) -> str:
    """Words of several columns as one text."""
    return " ".join(" ".join(row[name] for name in columns).split())


def without_shared(train: ReportTable, test: ReportTable) -> ReportTable:
    """The training reports of whose patient, id or words nothing is in the test.

    Raises:
        DataError: nothing is left.
    """
    texts, patients, ids = (set(values) for values in (test.texts, test.patients, test.ids))
    apart = [
        row
        for row in range(len(train))
        if train.texts[row] not in texts and train.patients[row] not in patients and train.ids[row] not in ids
    ]
    if not apart:
        raise DataError("Every training report, or its patient, is also in the test.")
    return train.take(apart)
