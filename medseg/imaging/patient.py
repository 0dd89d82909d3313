"""Whose scan it is, as DICOM says: asked for by those who keep an archive, and stored nowhere here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medseg.imaging.dicom import quiet
from medseg.imaging.dicom_headers import DicomFile, read_headers
from medseg.imaging.dicom_source import dicom_files
from medseg.imaging.sniff import sniff


def read_patient(path: Path) -> str:
    """The PatientID of a DICOM folder, file or zip; empty where there is none, or for other formats.

    That of the first image that names one: directories of CDs and documents may lie before it.

    Raises:
        InputError: a zip or a file that cannot be read.
    """
    kind = "folder" if path.is_dir() else sniff(path) if path.is_file() else ""
    if kind == "dicom":
        return _first_patient(path, [DicomFile(path, path.name)])
    if kind not in ("folder", "zip"):
        return ""
    with dicom_files(path) as files:
        return _first_patient(path, files)


def _first_patient(source: Path, files: Iterable[DicomFile]) -> str:
    with quiet():
        headers = (header for file in files for header in read_headers(source, file))
        return next((header.patient for header in headers if header.columns and header.patient), "")
