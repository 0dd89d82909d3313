"""The pixels of DICOM slices in Hounsfield units."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from medseg.errors import (
    CorruptFileError,
    InputError,
    NotHUError,
    NotVolumeError,
    TruncatedFileError,
    UnknownFormatError,
)
from medseg.imaging.checks import AIR_HU
from medseg.imaging.dicom_headers import DicomFile, SliceHeader, number, numbers
from medseg.imaging.dicom_witness import Witness
from medseg.imaging.values import rescale
from medseg.imaging.volume import Array

_NATIVE = {
    "1.2.840.10008.1.2": "implicit little endian",
    "1.2.840.10008.1.2.1": "explicit little endian",
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.2": "big endian",
}
UNCOMPRESSED = frozenset(_NATIVE.values())
_LOSSLESS = {
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000 lossless RPCL",
    "1.2.840.10008.1.2.5": "RLE",
}
_LOSSY = {
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
}
_RLE = "1.2.840.10008.1.2.5"
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_NOT_HU = {"LOOKUP TABLE", "OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"}
"""Rescale types of the standard that are certainly something else (density, effective number ...)."""


@dataclass(frozen=True)
class PixelFile:
    """One file, parsed and counted: its slices can be decoded.

    Attributes:
        source: what the user gave, for the text of an error.
        file: which file of it.
        dataset: as pydicom reads it.
        witness: as we read it.
        sha256: digest of the file.
        syntax: transfer syntax UID.
        extra: bytes behind the pixels beyond the even length, and behind the data set.
    """

    source: Path
    file: DicomFile
    dataset: Dataset
    witness: Witness
    sha256: str
    syntax: str
    extra: int

    @classmethod
    def open(cls, source: Path, file: DicomFile) -> PixelFile:
        """Parse one file twice and count its pixels.

        Raises:
            InputError: truncated, damaged, or compressed in a way that is not read.
        """
        data = file.path.read_bytes()
        dataset = _parse(source, file, data)
        witness = Witness.of(source, file, data)
        try:
            syntax = _syntax(dataset)
            _check_layout(source, file, dataset)
            extra = _check_length(source, file, dataset, syntax) + witness.reading.rest
        except (InputError, MemoryError):
            raise
        except Exception as error:  # pydicom parses values when they are asked for, and passes on what it stumbles over
            raise CorruptFileError(source, f"{file.label} cannot be parsed as DICOM.") from error
        return cls(source, file, dataset, witness, hashlib.sha256(data).hexdigest(), syntax, extra)

    @property
    def lossy(self) -> str:
        """How it was compressed with loss; empty when it was not."""
        if self.syntax in _LOSSY:
            return _LOSSY[self.syntax]
        return "an earlier lossy compression" if str(self.dataset.get("LossyImageCompression", "")) == "01" else ""

    @property
    def compression(self) -> str:
        """The transfer syntax in words."""
        return (_NATIVE | _LOSSLESS | _LOSSY)[self.syntax]

    def slices(self, headers: Sequence[SliceHeader], any_values: bool = False) -> Iterator[Array]:
        """Each slice as float32 HU (columns, rows): the first axis runs along a row of the picture.

        Args:
            headers: slices of this file.
            any_values: the user has accepted values that are no HU.

        Raises:
            InputError: the two readings differ, the pixels cannot be decoded, or their values are no HU.
        """
        for header in headers:
            self.witness.confirm(header)
        try:
            stored = _decode(self.source, self.file, self.dataset, self.syntax, headers)
            self._check_decoded(stored, headers[0].frames)
            for header in headers:
                hu = _to_hu(self.source, header, self.dataset, stored[header.frame], any_values)
                yield hu.T
        except (InputError, MemoryError):
            raise
        except Exception as error:  # as above
            raise CorruptFileError(self.source, f"{self.file.label} cannot be parsed as DICOM.") from error

    def _check_decoded(self, stored: Array, frames: int) -> None:
        own = self.witness.native_pixels(frames) if self.syntax in _NATIVE else None
        if self.syntax in _NATIVE and (own is None or not np.array_equal(own, stored)):
            raise CorruptFileError(self.source, f"two readers decode {self.file.label} to different pixels.")


def _parse(source: Path, file: DicomFile, data: bytes) -> Dataset:
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=data[128:132] != b"DICM")
        has_pixels = "PixelData" in dataset and bool(dataset.PixelData)
    except EOFError as error:
        raise TruncatedFileError(source, f"{file.label} ends too early.") from error
    except Exception as error:  # pydicom passes on whatever its parsing stumbles over
        raise CorruptFileError(source, f"{file.label} cannot be parsed as DICOM.") from error
    if has_pixels:
        return dataset
    if b"\xe0\x7f\x10\x00" in data:
        raise TruncatedFileError(source, f"{file.label} ends within its pixels.")
    raise CorruptFileError(source, f"{file.label} has no pixels (PixelData).")


def _syntax(dataset: Dataset) -> str:
    """The transfer syntax; a data set without file meta information says how pydicom parsed it."""
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        native = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(native)
    return str(dataset.file_meta.TransferSyntaxUID)


def _check_layout(source: Path, file: DicomFile, dataset: Dataset) -> None:
    if number(dataset, "SamplesPerPixel") not in (1, None) or str(dataset.get("PhotometricInterpretation")).startswith(
        ("RGB", "YBR", "PALETTE")
    ):
        raise NotVolumeError(source, f"{file.label} is a colour picture.")
    if str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
        raise NotHUError(source, f"{file.label} is stored inverted (MONOCHROME1).")
    allocated, stored = number(dataset, "BitsAllocated") or 0, number(dataset, "BitsStored") or 0
    high = number(dataset, "HighBit")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or high not in (None, stored - 1):
        bits = f"{stored:g} of {allocated:g} bits"
        raise CorruptFileError(source, f"{file.label} has {bits}, a layout that CT does not use.")
    if number(dataset, "PixelRepresentation") not in (0, 1):
        raise CorruptFileError(source, f"{file.label} does not say whether its pixels are signed.")


def _check_length(source: Path, file: DicomFile, dataset: Dataset, syntax: str) -> int:
    """Compare the length of the pixels with the size of the picture; the surplus in bytes."""
    frames = int((numbers(dataset, "NumberOfFrames", 1) or (1,))[0])
    if syntax not in _NATIVE:
        _check_frames(source, file, dataset, syntax, frames)
        return 0
    wanted = frames * dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    found = len(dataset.PixelData)
    if found < wanted:
        raise TruncatedFileError(source, f"{file.label} holds {found:,} of {wanted:,} bytes of pixels.")
    return max(0, found - wanted - wanted % 2)


def _check_frames(source: Path, file: DicomFile, dataset: Dataset, syntax: str, count: int) -> None:
    if syntax not in _LOSSLESS and syntax not in _LOSSY:
        name = pydicom.uid.UID(syntax).name
        raise UnknownFormatError(source, f"{file.label} is compressed in a way that is not supported ({name}).")
    try:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    except Exception as error:  # pydicom passes on whatever its parsing stumbles over
        raise CorruptFileError(source, f"{file.label}: its compressed pixels are damaged.") from error
    if len(frames) != count:
        raise CorruptFileError(source, f"{file.label} says that it has {count} frames and holds {len(frames)}.")
    # A JPEG decoder may fill up a stream that was cut off; its end marker shows that it is whole.
    if syntax != _RLE and not all(frame.rstrip(b"\0").endswith(b"\xff\xd9") for frame in frames):
        raise TruncatedFileError(source, f"{file.label}: its compressed pixels end too early.")


def _decode(source: Path, file: DicomFile, dataset: Dataset, syntax: str, headers: Sequence[SliceHeader]) -> Array:
    """Stored numbers (frames, rows, columns)."""
    if syntax not in _NATIVE and not get_decoder(pydicom.uid.UID(syntax)).is_available:
        name = pydicom.uid.UID(syntax).name
        advice = "Install medseg with its decoders (pylibjpeg-openjpeg, pyjpegls, python-gdcm)."
        raise UnknownFormatError(source, f"{file.label} is compressed as {name}; no decoder is here.", advice=advice)
    if syntax == _JPEG_EXTENDED and dataset.BitsStored > 8:
        how = f"JPEG extended with {dataset.BitsStored} bits"
        reason = f"{file.label} is compressed as {how}, for which there is no decoder."
        raise UnknownFormatError(source, reason, advice="Export it uncompressed or with a lossless compression.")
    try:
        stored = np.asarray(dataset.pixel_array)
    except Exception as error:  # decoders raise what they like
        raise CorruptFileError(source, f"{file.label}: its pixels cannot be decoded.") from error
    frames = stored[None] if stored.ndim == 2 else stored
    if frames.shape != (headers[0].frames, headers[0].rows, headers[0].columns):
        raise CorruptFileError(source, f"{file.label}: its pixels have another size than its header.")
    return frames


def _to_hu(source: Path, header: SliceHeader, dataset: Dataset, stored: Array, any_values: bool) -> Array:
    slope, inter, kind = header.rescale
    if any_values:
        slope, inter = slope or 1.0, inter or 0.0
    elif slope is None or inter is None or slope == 0:
        reason = f"{header.label} has no rescale to Hounsfield units (RescaleSlope, RescaleIntercept)."
        raise NotHUError(source, reason)
    elif kind in _NOT_HU:
        raise NotHUError(source, f"{header.label} holds {kind} values (RescaleType).")
    hu = rescale(stored, slope, inter)
    padding = _padding(dataset, stored)
    if padding is not None:
        hu[padding] = AIR_HU
    return hu


def _padding(dataset: Dataset, stored: Array) -> Array | None:
    """Mask of padding, where the header's value really frames the picture: wrong values are common."""
    value = numbers(dataset, "PixelPaddingValue", 1)
    if value is None:
        return None
    limit = numbers(dataset, "PixelPaddingRangeLimit", 1) or value
    low, high = sorted((_as_stored(dataset, value[0]), _as_stored(dataset, limit[0])))
    mask = (stored >= low) & (stored <= high)
    corners = mask[[0, 0, -1, -1], [0, -1, 0, -1]]
    return mask if int(corners.sum()) >= 2 else None


def _as_stored(dataset: Dataset, value: float) -> float:
    """Padding is often written with the other sign representation (63536 for -2000)."""
    whole = 1 << int(dataset.BitsAllocated)
    if dataset.PixelRepresentation == 1:
        return value - whole if value >= whole / 2 else value
    return value + whole if value < 0 else value
