"""What one DICOM file says about itself, read without its pixels and without its patient's name."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from medseg.errors import CorruptFileError, TooLargeError, TruncatedFileError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
DIRECTORY = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_INFLATED_BYTES = 1 << 26
"""A deflated data set is inflated in one piece, so its size is counted first."""

SPLIT_TAGS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "ConvolutionKernel",
    "KVP",
    "ReconstructionDiameter",
    "AcquisitionTime",
    "SeriesTime",
)
"""Attributes that part the phases or reconstructions that share one series."""

_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "SeriesNumber",
    "PatientID",
    "ImageType",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "GantryDetectorTilt",
    "BurnedInAnnotation",
    *SPLIT_TAGS,
)


@dataclass(frozen=True)
class DicomFile:
    """A file to read and the name by which the user knows it."""

    path: Path
    label: str


@dataclass(frozen=True)
class SliceHeader:
    """The facts of one file that decide to which volume it belongs and where it lies (LPS mm)."""

    file: DicomFile
    sop_class: str
    sop_uid: str
    modality: str
    series: str
    series_number: int
    study: str
    patient: str
    image_type: tuple[str, ...]
    frames: int
    columns: int
    rows: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    tilt_deg: float
    burned_in: bool
    splits: tuple[str, ...]

    @property
    def is_ct(self) -> bool:
        return self.modality in ("CT", "") and self.sop_class in (CT_IMAGE, *ENHANCED_CT)

    @property
    def is_multiframe(self) -> bool:
        return self.frames > 1 or self.sop_class in ENHANCED_CT

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in self.image_type


def read_header(source: Path, file: DicomFile) -> SliceHeader | None:
    """The header of one file that looks like DICOM; None for a directory, or junk without a preamble.

    Args:
        source: the folder, zip or file that the user gave, for the text of an error.
        file: which file of it.

    Raises:
        TruncatedFileError, CorruptFileError, TooLargeError: it says that it is DICOM and is not readable.
    """
    with file.path.open("rb") as opened:
        head = opened.read(1024)
    strict = head[128:132] == b"DICM"
    if DEFLATED.encode() in head:
        _guard_deflated(source, file)
    try:
        with file.path.open("rb") as opened:
            dataset = pydicom.dcmread(opened, stop_before_pixels=True, specific_tags=list(_TAGS), force=not strict)
            ended = opened.tell() >= file.path.stat().st_size
        header = _facts(dataset, file)
    except EOFError as error:
        raise TruncatedFileError(source, f"{file.label} ends within its header.") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # pydicom passes on whatever its parsing stumbles over
        if not strict:
            return None
        raise CorruptFileError(source, f"{file.label} cannot be parsed as DICOM.") from error
    # pydicom takes a header that was cut off for a short one; only an image without pixels ends here.
    if ended and header is not None and header.is_ct and DEFLATED.encode() not in head:
        raise TruncatedFileError(source, f"{file.label} ends before its pixels.")
    return header


def _facts(dataset: pydicom.FileDataset, file: DicomFile) -> SliceHeader | None:
    sop_class = str(dataset.get("SOPClassUID", "")) or str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    if sop_class == DIRECTORY:
        return None
    if not sop_class:
        raise ValueError("no SOP class")
    return SliceHeader(
        file=file,
        sop_class=sop_class,
        sop_uid=_text(dataset, "SOPInstanceUID"),
        modality=_text(dataset, "Modality").upper(),
        series=_text(dataset, "SeriesInstanceUID"),
        series_number=int((numbers(dataset, "SeriesNumber", 1) or (0,))[0]),
        study=_text(dataset, "StudyInstanceUID"),
        patient=_text(dataset, "PatientID"),
        image_type=tuple(part.upper() for part in _text(dataset, "ImageType").split("\\")),
        frames=int((numbers(dataset, "NumberOfFrames", 1) or (1,))[0]),
        columns=int((numbers(dataset, "Columns", 1) or (0,))[0]),
        rows=int((numbers(dataset, "Rows", 1) or (0,))[0]),
        position=numbers(dataset, "ImagePositionPatient", 3),
        orientation=numbers(dataset, "ImageOrientationPatient", 6),
        spacing=numbers(dataset, "PixelSpacing", 2),
        tilt_deg=(numbers(dataset, "GantryDetectorTilt", 1) or (0.0,))[0],
        burned_in=_text(dataset, "BurnedInAnnotation").upper() == "YES",
        splits=tuple(_text(dataset, tag) for tag in SPLIT_TAGS),
    )


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return "\\".join(str(part) for part in value)
    return str(value).strip()


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers of an attribute; None when it is absent, empty or something else."""
    try:
        value = dataset.get(keyword)
        parts = [value] if isinstance(value, (int, float, str)) else list(value)
        found = tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def _guard_deflated(source: Path, file: DicomFile) -> None:
    data = file.path.read_bytes()
    start = _end_of_meta(data)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        total = len(engine.decompress(data[start:], MAX_INFLATED_BYTES))
    except zlib.error as error:
        raise CorruptFileError(source, f"{file.label}: the deflated data are damaged.") from error
    if total >= MAX_INFLATED_BYTES:
        raise TooLargeError(source, f"{file.label} inflates to more than {MAX_INFLATED_BYTES >> 20} MB.")
    if not engine.eof:
        raise TruncatedFileError(source, f"{file.label}: the deflated data end too early.")


def _end_of_meta(data: bytes) -> int:
    """Group 2 begins with its own length: tag, VR and length in 8 bytes, then the 4-byte value."""
    return 144 + int.from_bytes(data[140:144], "little")
