"""Any scan in, `Volume` out: what the reading process runs (see `room`). The content decides, not the extension."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from medseg.errors import InputError, NoScanError, TruncatedFileError, UnknownFormatError
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.nifti import read_nifti
from medseg.imaging.scan_files import companions, own_files, stamp
from medseg.imaging.sniff import HEAD_BYTES, describe, sniff_bytes
from medseg.imaging.volume import Volume

_WATCHED = 50_000  # of a folder; with more of them it is refused, see `dicom`


def read_here(path: Path, series: str | None = None, accept: Acceptance = NOTHING) -> Volume:
    """Read a CT in this process; see `reader.read_volume`, which does it in one that may break.

    Raises:
        InputError: one of its branches; the text names the file, the reason and the way out.
    """
    try:
        before = _state(path)
        volume = _read(path, series, accept)
        if _state(path) != before:
            advice = "Wait until it is complete, and try again."
            raise TruncatedFileError(path, "changed while it was read.", advice=advice)
        return volume
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error}).", advice="Check the path.") from error


def _state(path: Path) -> list[tuple[Path, str]]:
    """Names, sizes and times of all that is read: a copy that is still under way changes them."""
    files = (*islice(own_files(path), _WATCHED), *companions(path))
    return sorted((file, stamp(file)) for file in files)


def _read(path: Path, series: str | None, accept: Acceptance) -> Volume:
    if path.is_dir():
        from medseg.imaging.dicom import read_dicom_folder

        return read_dicom_folder(path, series=series, accept=accept)
    if not path.exists():
        raise NoScanError(path, "does not exist.", advice="Check the path.")
    if not path.is_file():
        raise UnknownFormatError(path, "is neither a file nor a folder.")
    return _read_file(path, series, accept)


def _read_file(path: Path, series: str | None, accept: Acceptance) -> Volume:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    match sniff_bytes(head):
        case "nifti":
            return read_nifti(path, accept=accept)
        case "nrrd":
            from medseg.imaging.nrrd import read_nrrd

            return read_nrrd(path, accept=accept)
        case "mha":
            from medseg.imaging.metaimage import read_metaimage

            return read_metaimage(path, accept=accept)
        case "zip":
            from medseg.imaging.archive import read_zip

            return read_zip(path, series=series, accept=accept)
        case "dicom":
            from medseg.imaging.dicom import read_dicom_file

            return read_dicom_file(path, series=series, accept=accept)
        case _:
            raise UnknownFormatError(path, f"is {describe(head)}, not a scan.")
