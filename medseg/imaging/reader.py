"""The reading door: any scan in, `Volume` out."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import InputError, NoScanError, UnknownFormatError
from medseg.imaging.nifti import read_nifti
from medseg.imaging.sniff import HEAD_BYTES, describe, sniff_bytes
from medseg.imaging.volume import Volume


def read_volume(path: str | Path, *, series: str | int | None = None) -> Volume:
    """Read a CT from whatever it came in.

    Args:
        path: NIfTI, NRRD or MHA file, DICOM folder or one of its files, or a zip of one of these.
            The content decides, not the extension.
        series: where a folder or zip holds several CT series, the number in the list that the
            error shows, or (the end of) its UID.

    Returns:
        Volume with `hu` in float32, indexed as the file; `findings` is empty for a clean scan.

    Raises:
        InputError: one of its branches; the text names the file, the reason and the way out.
    """
    path = Path(path)
    choice = None if series is None else str(series)
    try:
        return _read(path, choice)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error}).", advice="Check the path.") from error


def _read(path: Path, series: str | None) -> Volume:
    if path.is_dir():
        from medseg.imaging.dicom import read_dicom_folder

        return read_dicom_folder(path, series=series)
    if not path.exists():
        raise NoScanError(path, "does not exist.", advice="Check the path.")
    if not path.is_file():
        raise UnknownFormatError(path, "is neither a file nor a folder.")
    return _read_file(path, series)


def _read_file(path: Path, series: str | None) -> Volume:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    match sniff_bytes(head):
        case "nifti":
            return read_nifti(path)
        case "nrrd":
            from medseg.imaging.nrrd import read_nrrd

            return read_nrrd(path)
        case "mha":
            from medseg.imaging.metaimage import read_metaimage

            return read_metaimage(path)
        case "zip":
            from medseg.imaging.archive import read_zip

            return read_zip(path, series=series)
        case "dicom":
            from medseg.imaging.dicom import read_dicom_file

            return read_dicom_file(path, series=series)
        case _:
            raise UnknownFormatError(path, f"is {describe(head)}, not a scan.")
