"""What one DICOM file says about itself, read without its pixels and without its patient's name."""

from __future__ import annotations

import io
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset

from medseg.errors import CorruptFileError, TooLargeError, TruncatedFileError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
DIRECTORY = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_INFLATED_BYTES = 1 << 26
"""A deflated data set is inflated in one piece, so its size is counted first."""

MAX_HELD_BYTES = 1 << 26

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
    "InstanceNumber",
    "PatientID",
    "ImageType",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
    "ImagesInAcquisition",
    "NumberOfSeriesRelatedInstances",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "FrameOfReferenceUID",
    "GantryDetectorTilt",
    "BurnedInAnnotation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *SPLIT_TAGS,
)


@dataclass(frozen=True)
class DicomFile:
    """A file to read and the name by which the user knows it."""

    path: Path
    label: str


@dataclass(frozen=True)
class Claims:
    """What a header says beside the geometry; it can contradict it, and is not needed to build it.

    Attributes:
        instance: InstanceNumber.
        thickness_mm, between_mm, location_mm: SliceThickness, SpacingBetweenSlices, SliceLocation.
        images: how many images the acquisition or series is said to have.
        tilt_deg: GantryDetectorTilt.
    """

    instance: int | None = None
    thickness_mm: float | None = None
    between_mm: float | None = None
    location_mm: float | None = None
    images: int | None = None
    tilt_deg: float = 0.0


@dataclass(frozen=True)
class SliceHeader:
    """The facts of one slice that decide to which volume it belongs and where it lies (LPS mm).

    A single-frame file is one slice, a multi-frame file one for each frame (`frame` counts from 0).
    `rescale` is slope, intercept and type; `reference` names the frame in which places are counted.
    """

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
    rescale: tuple[float | None, float | None, str]
    burned_in: bool
    splits: tuple[str, ...]
    reference: str = ""
    claims: Claims = field(default_factory=Claims)
    frame: int = 0

    @property
    def is_ct(self) -> bool:
        return self.modality in ("CT", "") and self.sop_class in (CT_IMAGE, *ENHANCED_CT)

    @property
    def is_enhanced(self) -> bool:
        return self.sop_class in ENHANCED_CT

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in self.image_type

    @property
    def label(self) -> str:
        """The slice's name for the user: its file, and the frame in it."""
        return f"{self.file.label} frame {self.frame + 1}" if self.is_enhanced else self.file.label


def read_headers(source: Path, file: DicomFile) -> tuple[SliceHeader, ...]:
    """The slices of one file that looks like DICOM; none for a directory, or junk without a preamble.

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
        with _opened(file.path) as opened:
            dataset = pydicom.dcmread(opened, stop_before_pixels=True, specific_tags=list(_TAGS), force=not strict)
            ended = opened.tell() >= file.path.stat().st_size
        found = _slices(source, file, dataset)
    except EOFError as error:
        raise TruncatedFileError(source, f"{file.label} ends within its header.") from error
    except (OSError, CorruptFileError):
        raise
    except Exception as error:  # pydicom passes on whatever its parsing stumbles over; a lying length wants gigabytes
        if not strict:
            return ()
        raise CorruptFileError(source, f"{file.label} cannot be parsed as DICOM.") from error
    # pydicom takes a header that was cut off for a short one; only an image without pixels ends here.
    if ended and found and found[0].is_ct and DEFLATED.encode() not in head:
        raise TruncatedFileError(source, f"{file.label} ends before its pixels.")
    return found


def _opened(path: Path) -> BinaryIO:
    """The file, in memory where it is small: reading by a length that lies then ends where the file ends."""
    if path.stat().st_size > MAX_HELD_BYTES:
        return path.open("rb")
    return io.BytesIO(path.read_bytes())


def _slices(source: Path, file: DicomFile, dataset: pydicom.FileDataset) -> tuple[SliceHeader, ...]:
    header = _facts(dataset, file)
    if header is None:
        return ()
    if not header.is_enhanced:
        return (header,)
    from medseg.imaging.dicom_frames import frame_headers

    return frame_headers(source, header, dataset)


def _facts(dataset: pydicom.FileDataset, file: DicomFile) -> SliceHeader | None:
    sop_class = str(dataset.get("SOPClassUID", "")) or str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    if sop_class == DIRECTORY:
        return None
    if not sop_class:
        raise ValueError("no SOP class")
    return SliceHeader(
        file=file,
        sop_class=sop_class,
        sop_uid=text(dataset, "SOPInstanceUID"),
        modality=text(dataset, "Modality").upper(),
        series=text(dataset, "SeriesInstanceUID"),
        series_number=_whole(dataset, "SeriesNumber") or 0,
        study=text(dataset, "StudyInstanceUID"),
        patient=text(dataset, "PatientID"),
        image_type=image_type(dataset, "ImageType"),
        frames=_whole(dataset, "NumberOfFrames") or 1,
        columns=_whole(dataset, "Columns") or 0,
        rows=_whole(dataset, "Rows") or 0,
        position=numbers(dataset, "ImagePositionPatient", 3),
        orientation=numbers(dataset, "ImageOrientationPatient", 6),
        spacing=numbers(dataset, "PixelSpacing", 2),
        rescale=rescale_of(dataset),
        burned_in=text(dataset, "BurnedInAnnotation").upper() == "YES",
        splits=tuple(text(dataset, tag) for tag in SPLIT_TAGS),
        reference=text(dataset, "FrameOfReferenceUID"),
        claims=_claims(dataset),
    )


def _claims(dataset: Dataset) -> Claims:
    counts = (_whole(dataset, "ImagesInAcquisition"), _whole(dataset, "NumberOfSeriesRelatedInstances"))
    return Claims(
        instance=_whole(dataset, "InstanceNumber"),
        thickness_mm=number(dataset, "SliceThickness"),
        between_mm=number(dataset, "SpacingBetweenSlices"),
        location_mm=number(dataset, "SliceLocation"),
        images=next((count for count in counts if count), None),
        tilt_deg=number(dataset, "GantryDetectorTilt") or 0.0,
    )


def rescale_of(dataset: Dataset) -> tuple[float | None, float | None, str]:
    """Slope, intercept and type; None where the header lacks them. A table of values beside them is a type."""
    kind = "LOOKUP TABLE" if "ModalityLUTSequence" in dataset else text(dataset, "RescaleType").upper()
    return number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept"), kind


def image_type(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The parts of an image or frame type."""
    return tuple(part.upper() for part in text(dataset, keyword).split("\\"))


def text(dataset: Dataset, keyword: str) -> str:
    """An attribute as text; '' where it is absent or empty."""
    if (value := dataset.get(keyword)) is None:
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


def number(dataset: Dataset, keyword: str) -> float | None:
    """One finite number, or None."""
    found = numbers(dataset, keyword, 1)
    return None if found is None else found[0]


def _whole(dataset: Dataset, keyword: str) -> int | None:
    found = number(dataset, keyword)
    return None if found is None else int(found)


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
