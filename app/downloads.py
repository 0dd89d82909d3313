"""The files that a result can become, as the page offers them."""

from __future__ import annotations

from pathlib import Path

from app.results import Result
from medseg.exports import FORMATS

EXPORTS = tuple(FORMATS)
NEEDS_DICOM = frozenset({"dicom-seg", "dicom-seg-labelmap", "rtstruct"})


def file_name(result: Result, study: str, number: int, name: str, path: Path) -> str:
    """A name that no other study's file has."""
    return f"{result.model}_{study[:8]}_{number}_{name.replace('.', '-')}{''.join(path.suffixes[-2:])}"
