"""DICOM: the door for folders and files of CT slices. LPS is known only behind it."""

from __future__ import annotations

import hashlib
import math
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import (
    CorruptFileError,
    DuplicateSlicesError,
    InputError,
    NoScanError,
    NotCTError,
    NotVolumeError,
    TooLargeError,
    TruncatedFileError,
)
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.checks import check_finite, check_hounsfield, leap_findings, settle_padding
from medseg.imaging.dicom_geometry import Layout, Stack, claim_findings, corner_distances, lay_out, stack_slices
from medseg.imaging.dicom_headers import DicomFile, SliceHeader, read_headers
from medseg.imaging.dicom_pixels import UNCOMPRESSED, PixelFile
from medseg.imaging.dicom_regrid import straighten, straightened_shape
from medseg.imaging.dicom_series import Candidate, check_uniform, choose, series_findings
from medseg.imaging.grid import check_affine, check_size, coarse_findings
from medseg.imaging.naming import printable, scan_name, stray_sibling
from medseg.imaging.sniff import sniff
from medseg.imaging.volume import NOT_PROVABLE, Array, Finding, Geometry, Volume, axis_lengths

MAX_FILES = 50_000


def read_dicom_folder(folder: Path, *, series: str | None = None, accept: Acceptance = NOTHING) -> Volume:
    """Read the CT series in `folder` and the folders below it; other files are ignored.

    Raises:
        InputError: one of its branches, naming the folder and, where one is to blame, the file.
    """
    return read_dicom_files(folder, list(_files(folder)), series=series, accept=accept)


def read_dicom_file(path: Path, *, series: str | None = None, accept: Acceptance = NOTHING) -> Volume:
    """Read the series to which one file belongs, from the folder in which it lies."""
    with quiet():
        own = read_headers(path, DicomFile(path, path.name))
        if not own:
            raise NoScanError(path, "is a DICOM directory, not an image.")
        siblings = [f for f in _files(path.parent, nested=False) if f.path.name != path.name]
        beside = _headers(path, siblings)
        headers = [*own, *(h for h in beside if h.series == own[0].series)]
    unread = _unread(path, siblings, beside)
    if not own[0].is_ct:
        accept.lift(NotCTError(path, f"is no CT image (modality {own[0].modality or 'unknown'})."))
    if len(headers) == 1 and headers[0].frames == 1:
        advice = "Give the folder with the whole series."
        raise NotVolumeError(path, "is a single slice, and no other slice of its series lies beside it.", advice=advice)
    volume = _read(path, headers, series, accept)
    return replace(volume, name=scan_name(path), findings=unread + volume.findings)


def read_dicom_files(
    source: Path, files: Sequence[DicomFile], *, series: str | None = None, accept: Acceptance = NOTHING
) -> Volume:
    """Read the CT series among `files`, which came from `source`."""
    with quiet():
        headers = _headers(source, files)
    if not headers:
        raise NoScanError(source, "holds no DICOM images.")
    unread = _unread(source, files, headers)
    volume = _read(source, headers, series, accept)
    return replace(volume, findings=unread + volume.findings)


def _files(folder: Path, *, nested: bool = True) -> Iterator[DicomFile]:
    """DICOM files below `folder`, in the order of their names."""
    slices: list[str] = []
    others: list[str] = []
    for number, path in enumerate(_walk(folder, nested)):
        if number >= MAX_FILES:
            raise TooLargeError(folder, f"holds more than {MAX_FILES:,} files.", advice="Give the folder of one study.")
        label = printable(str(path.relative_to(folder)))
        if sniff(path) == "dicom":
            slices.append(label)
            yield DicomFile(path, label)
        elif path.suffix.lower() == ".dcm":
            raise _no_slice(folder, label, path)
        else:
            others.append(label)
    if stray := stray_sibling(others, slices):
        raise _no_slice(folder, stray, folder / stray)


def _no_slice(folder: Path, label: str, path: Path) -> InputError:
    if path.exists() and path.stat().st_size == 0:
        return TruncatedFileError(folder, f"{label} is empty.")
    return CorruptFileError(folder, f"{label} is not DICOM inside.")


def _walk(folder: Path, nested: bool) -> Iterator[Path]:
    def refuse(error: OSError) -> None:  # of a folder that cannot be listed; without it `os.walk` goes on in silence
        raise _unseen(folder, Path(error.filename or folder), error) from error

    root = folder.resolve()
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(f for f in folders if nested and f != "__MACOSX")
        for name in sorted(names):
            path = Path(parent) / name
            # Hidden files are the droppings of file managers ('._IM1.dcm' of macOS is not the image).
            if not name.startswith(".") and name.upper() != "DICOMDIR" and _is_inside(folder, path, root):
                yield path


def _is_inside(source: Path, path: Path, root: Path) -> bool:
    """A regular file, not a pipe or device, and not a link out of the folder."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        # A link that leads nowhere, or a file that was just deleted, is no slice.
        if os.path.islink(path) or isinstance(error, FileNotFoundError):
            return False
        raise _unseen(source, path, error) from error
    return regular and (not path.is_symlink() or path.resolve().is_relative_to(root))


def _unseen(source: Path, path: Path, error: OSError) -> InputError:
    name = "" if path == source else f"{printable(os.path.relpath(path, source))} "
    reason = f"{name}cannot be looked at ({error.strerror or error}): slices may lie there."
    return InputError(source, reason, advice="Allow reading it, or copy the study to another place.")


def _unread(source: Path, files: Sequence[DicomFile], headers: Sequence[SliceHeader]) -> tuple[Finding, ...]:
    """Words on files that begin like DICOM and gave no header; one that is named like the slices is refused."""
    read = {header.file for header in headers}
    # With a preamble only the directory of a disc gives none.
    labels = [file.label for file in files if file not in read and not _has_preamble(file.path)]
    damaged = [label for label in labels if label.lower().endswith(".dcm")]
    if stray := stray_sibling(labels, (file.label for file in read)) or next(iter(damaged), None):
        raise CorruptFileError(source, f"{stray} cannot be parsed as DICOM.")
    text = "begins like DICOM and cannot be parsed: it was left out."
    return tuple(Finding("unread", f"{label} {text}") for label in labels)


def _has_preamble(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _headers(source: Path, files: Sequence[DicomFile]) -> list[SliceHeader]:
    return [header for file in files for header in read_headers(source, file)]


def quiet() -> warnings.catch_warnings[None]:
    """pydicom warns of every odd value, quoting it; what matters is refused by name here."""
    return warnings.catch_warnings(action="ignore")


def _read(source: Path, headers: Sequence[SliceHeader], series: str | None, accept: Acceptance) -> Volume:
    candidate = choose(source, headers, series, accept)
    check_uniform(source, candidate)
    stack = stack_slices(source, candidate.slices)
    chosen = [place[0] for place in stack.places]
    layout = lay_out(source, chosen)
    shape = (chosen[0].columns, chosen[0].rows, len(chosen))
    check_size(source, max(math.prod(shape), math.prod(straightened_shape(shape, layout))))
    check_affine(source, layout.affine)
    with quiet():
        pixels = _pixels(source, stack, bool(accept))
    hu, affine = pixels.hu, layout.affine
    check_finite(source, hu)
    settle_padding(hu)
    findings = candidate.accepted + pixels.findings() + series_findings(candidate)
    findings += claim_findings(chosen, layout, len(candidate.slices) + len(candidate.set_aside))
    findings += leap_findings(hu, [header.rescale for header in chosen])
    if not layout.is_grid:
        hu, affine, done = straighten(hu, layout)
        findings += done
    findings += check_hounsfield(source, hu, accept) + coarse_findings(affine)
    evidence = _evidence(headers, candidate, chosen, layout, pixels)
    geometry = Geometry(hu.shape, affine)
    digest = _digest(pixels.digests)
    return Volume(hu, geometry, scan_name(source), findings, digest, "dicom", candidate.uid, evidence)


@dataclass
class _Pixels:
    """The decoded slices of a stack, and what was seen on the way."""

    hu: Array
    digests: list[str] = field(default_factory=list)
    lossy: set[str] = field(default_factory=set)
    compressions: set[str] = field(default_factory=set)
    longer: int = 0
    copies: int = 0

    def take(self, file: PixelFile) -> None:
        self.digests.append(file.sha256)
        self.compressions.add(file.compression)
        self.longer += file.extra > 0
        if file.lossy:
            self.lossy.add(file.lossy)

    def findings(self) -> tuple[Finding, ...]:
        found = []
        if self.copies:
            text = f"{self.copies} slice(s) were there twice with the same pixels; the copies were left out."
            found.append(Finding("duplicate_slices", text))
        if self.lossy:
            how = ", ".join(sorted(self.lossy))
            text = f"The pixels were compressed with loss ({how}): fine detail and HU are approximate."
            found.append(Finding("lossy", text))
        if self.longer:
            text = f"{self.longer} slice file(s) hold more bytes than their pixels need."
            found.append(Finding("trailing_bytes", text))
        return tuple(found)


def _pixels(source: Path, stack: Stack, any_values: bool) -> _Pixels:
    first = stack.places[0][0]
    pixels = _Pixels(np.empty((first.columns, first.rows, len(stack.places)), np.float32, order="F"))
    for file, wanted in _by_file([place[0] for place in stack.places]):
        opened = PixelFile.open(source, file)
        pixels.take(opened)
        for (k, _), hu in zip(wanted, opened.slices([header for _, header in wanted], any_values), strict=True):
            pixels.hu[:, :, k] = hu
    for k, place in enumerate(stack.places):
        for other in place[1:]:
            _check_same(source, pixels.hu[:, :, k], place[0], other, any_values)
            pixels.copies += 1
    return pixels


def _by_file(headers: Sequence[SliceHeader]) -> Iterator[tuple[DicomFile, list[tuple[int, SliceHeader]]]]:
    """The slices of each file, with their numbers: a multi-frame file is opened once."""
    homes: dict[Path, list[tuple[int, SliceHeader]]] = {}
    for k, header in enumerate(headers):
        homes.setdefault(header.file.path, []).append((k, header))
    for wanted in homes.values():
        yield wanted[0][1].file, wanted


def _check_same(source: Path, kept: Array, first: SliceHeader, other: SliceHeader, any_values: bool) -> None:
    (hu,) = PixelFile.open(source, other.file).slices([other], any_values)
    if not np.array_equal(hu, kept):
        text = f"{first.label} and {other.label} lie at one place and show different pictures."
        raise DuplicateSlicesError(source, text)


def _evidence(
    headers: Sequence[SliceHeader],
    candidate: Candidate,
    chosen: Sequence[SliceHeader],
    layout: Layout,
    pixels: _Pixels,
) -> dict[str, Any]:
    """What stands behind the volume, for the run report."""
    own = {*candidate.slices, *candidate.set_aside}
    aside = Counter(h.modality or "unknown" for h in headers if h not in own)
    aside.update({"localizers": len(candidate.set_aside)} if candidate.set_aside else {})
    return {
        "readers": ["pydicom", "medseg"],
        "agreement": "image size, place, direction, spacing and rescale of every slice"
        + (", every stored number" if pixels.compressions <= UNCOMPRESSED else ""),
        "slices": len(chosen),
        "files": len(pixels.digests),
        "instance_numbers": _numbers(chosen),
        "order": "by place along the normal",
        "step_mm": round(float(axis_lengths(layout.affine)[2]), 6),
        "largest_corner_error_mm": round(float(corner_distances(chosen, layout).max()), 6),
        "transfer_syntax": sorted(pixels.compressions),
        "set_aside": dict(sorted(aside.items())),
        "not_provable": NOT_PROVABLE,
    }


def _numbers(slices: Sequence[SliceHeader]) -> list[int]:
    """The lowest and highest instance number: what a person compares with the PACS where end slices are in doubt."""
    known = [s.claims.instance for s in slices if s.claims.instance is not None]
    return [min(known), max(known)] if known else []


def _digest(digests: Sequence[str]) -> str:
    """Of the slices' digests in sorted order, so that file names do not matter."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
