"""DICOM: the door for folders and files of CT slices. LPS is known only behind it."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.errors import (
    CorruptFileError,
    DuplicateSlicesError,
    NoScanError,
    NotCTError,
    NotVolumeError,
    TooLargeError,
    TruncatedFileError,
)
from medseg.imaging.checks import check_finite, check_hounsfield, settle_padding
from medseg.imaging.dicom_geometry import Stack, grid_affine, stack_slices, tilt_findings
from medseg.imaging.dicom_headers import DicomFile, SliceHeader, read_header
from medseg.imaging.dicom_pixels import Slice, read_slice
from medseg.imaging.dicom_series import Candidate, check_uniform, choose, series_findings
from medseg.imaging.grid import check_affine, check_size, coarse_findings
from medseg.imaging.naming import printable, scan_name
from medseg.imaging.sniff import sniff
from medseg.imaging.volume import Finding, Geometry, Volume

MAX_FILES = 50_000


def read_dicom_folder(folder: Path, *, series: str | None = None) -> Volume:
    """Read the CT series in `folder` and the folders below it; other files are ignored.

    Raises:
        InputError: one of its branches, naming the folder and, where one is to blame, the file.
    """
    return read_dicom_files(folder, list(_files(folder)), series=series)


def read_dicom_file(path: Path, *, series: str | None = None) -> Volume:
    """Read the series to which one file belongs, from the folder in which it lies."""
    with _quiet():
        own = read_header(path, DicomFile(path, path.name))
    if own is None:
        raise NoScanError(path, "is a DICOM directory, not an image.")
    if not own.is_ct:
        raise NotCTError(path, f"is no CT image (modality {own.modality or 'unknown'}).")
    if own.is_multiframe:
        check_uniform(path, Candidate((own,)))
    siblings = [f for f in _files(path.parent, nested=False) if f.path.name != path.name]
    with _quiet():
        headers = [own, *(h for h in _headers(path, siblings) if h.series == own.series)]
    if len(headers) == 1:
        advice = "Give the folder with the whole series."
        raise NotVolumeError(path, "is a single slice, and no other slice of its series lies beside it.", advice=advice)
    volume = _read(path, headers, series)
    return replace(volume, name=scan_name(path))


def read_dicom_files(source: Path, files: Sequence[DicomFile], *, series: str | None = None) -> Volume:
    """Read the CT series among `files`, which came from `source`."""
    if not files:
        raise NoScanError(source, "holds no DICOM images.")
    with _quiet():
        headers = _headers(source, files)
    if not headers:
        raise NoScanError(source, "holds no DICOM images.")
    return _read(source, headers, series)


def _files(folder: Path, *, nested: bool = True) -> Iterator[DicomFile]:
    """DICOM files below `folder`, in the order of their names."""
    for number, path in enumerate(_walk(folder, nested)):
        if number >= MAX_FILES:
            raise TooLargeError(folder, f"holds more than {MAX_FILES:,} files.", advice="Give the folder of one study.")
        label = printable(str(path.relative_to(folder)))
        claims = path.suffix.lower() == ".dcm"
        if claims and path.stat().st_size == 0:
            raise TruncatedFileError(folder, f"{label} is empty.")
        if sniff(path) == "dicom":
            yield DicomFile(path, label)
        elif claims:
            raise CorruptFileError(folder, f"{label} is not DICOM inside.")


def _walk(folder: Path, nested: bool) -> Iterator[Path]:
    root = folder.resolve()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if nested and f != "__MACOSX")
        for name in sorted(names):
            path = Path(parent) / name
            # Hidden files are the droppings of file managers ('._IM1.dcm' of macOS is not the image).
            if not name.startswith(".") and name.upper() != "DICOMDIR" and _is_inside(path, root):
                yield path


def _is_inside(path: Path, root: Path) -> bool:
    """A regular file, not a pipe or device, and not a link out of the folder."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
    return regular and (not path.is_symlink() or path.resolve().is_relative_to(root))


def _headers(source: Path, files: Sequence[DicomFile]) -> list[SliceHeader]:
    found = (read_header(source, file) for file in files)
    return [header for header in found if header is not None]


def _quiet() -> warnings.catch_warnings[None]:
    """pydicom warns of every odd value, quoting it; what matters is refused by name here."""
    return warnings.catch_warnings(action="ignore")


def _read(source: Path, headers: Sequence[SliceHeader], series: str | None) -> Volume:
    candidate = choose(source, headers, series)
    check_uniform(source, candidate)
    stack = stack_slices(source, candidate.slices)
    chosen = [place[0] for place in stack.places]
    check_size(source, len(chosen) * chosen[0].rows * chosen[0].columns)
    affine = grid_affine(source, chosen)
    check_affine(source, affine)
    with _quiet():
        hu, slices, findings = _pixels(source, stack)
    check_finite(source, hu)
    settle_padding(hu)
    findings += series_findings(candidate) + tilt_findings(chosen) + _slice_findings(slices)
    findings += check_hounsfield(source, hu) + coarse_findings(affine)
    geometry = Geometry(hu.shape, affine)
    return Volume(hu, geometry, scan_name(source), findings, _digest(slices), "dicom", candidate.uid)


def _pixels(source: Path, stack: Stack) -> tuple[np.ndarray, list[Slice], tuple[Finding, ...]]:
    first = stack.places[0][0]
    hu = np.empty((first.columns, first.rows, len(stack.places)), np.float32, order="F")
    slices, dropped = [], 0
    for k, place in enumerate(stack.places):
        decoded = read_slice(source, place[0].file)
        hu[:, :, k] = decoded.hu
        slices.append(replace(decoded, hu=hu[:, :, k]))
        for other in place[1:]:
            _check_same(source, hu[:, :, k], place[0], other)
            dropped += 1
    return hu, slices, _dropped(dropped)


def _check_same(source: Path, kept: np.ndarray, first: SliceHeader, other: SliceHeader) -> None:
    if not np.array_equal(read_slice(source, other.file).hu, kept):
        text = f"{first.file.label} and {other.file.label} lie at one place and show different pictures."
        raise DuplicateSlicesError(source, text)


def _dropped(count: int) -> tuple[Finding, ...]:
    text = f"{count} slice(s) were there twice with the same pixels; the copies were left out."
    return (Finding("duplicate_slices", text),) if count else ()


def _slice_findings(slices: Sequence[Slice]) -> tuple[Finding, ...]:
    found = []
    if lossy := sorted({s.lossy for s in slices if s.lossy}):
        text = f"The pixels were compressed with loss ({', '.join(lossy)}): fine detail and HU are approximate."
        found.append(Finding("lossy", text))
    if count := sum(s.extra > 0 for s in slices):
        found.append(Finding("trailing_bytes", f"{count} slice file(s) hold more bytes than their pixels need."))
    return tuple(found)


def _digest(slices: Sequence[Slice]) -> str:
    """Of the slices' digests in sorted order, so that file names do not matter."""
    return hashlib.sha256("".join(sorted(s.sha256 for s in slices)).encode()).hexdigest()
