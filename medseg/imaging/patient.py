"""Whose scan it is, as DICOM says: asked for by those who keep an archive, and stored nowhere here."""

from __future__ import annotations

from pathlib import Path

from medseg.imaging.archive import unpacked
from medseg.imaging.dicom_headers import DicomFile, read_headers
from medseg.imaging.sniff import sniff


def read_patient(path: Path) -> str:
    """The PatientID of a DICOM folder, file or zip; empty where there is none, or for other formats.

    Raises:
        InputError: a zip or a file that cannot be read.
    """
    if path.is_dir():
        first = next((file for file in sorted(path.rglob("*")) if file.is_file() and sniff(file) == "dicom"), None)
        return "" if first is None else _patient(path, first)
    kind = sniff(path) if path.is_file() else ""
    if kind == "zip":
        with unpacked(path) as members:
            slices = [member for member in members if member.kind == "dicom"]
            return _patient(path, slices[0].path) if slices else ""
    return _patient(path, path) if kind == "dicom" else ""


def _patient(source: Path, file: Path) -> str:
    headers = read_headers(source, DicomFile(file, file.name))
    return headers[0].patient if headers else ""
