"""The second reading of every DICOM slice, by `dicom_elements`, held against pydicom's.

Two programs that share no code have to find the same picture size, place, direction, spacing, rescale and, where the
pixels are not compressed, the same stored numbers. A damaged header or file makes them differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import CorruptFileError, TruncatedFileError
from medseg.imaging.dicom_elements import (
    DIRECTION_GROUP,
    FRAME_GROUPS,
    MEASURES_GROUP,
    PIXEL_DATA,
    PLACE_GROUP,
    RESCALE_GROUP,
    SHARED_GROUPS,
    BrokenStructureError,
    CutShortError,
    Elements,
    Reading,
    decimals,
    read_elements,
)
from medseg.imaging.dicom_headers import MAX_INFLATED_BYTES, DicomFile, SliceHeader
from medseg.imaging.volume import Array

TOLERANCE_MM = 0.01
_ROWS, _COLUMNS, _ALLOCATED, _STORED, _SIGNED = 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103
_PLACE, _DIRECTION, _SPACING = 0x00200032, 0x00200037, 0x00280030
_SLOPE, _INTERCEPT = 0x00281053, 0x00281052
# What makes the picture or its place: twice in one file with different values is a contradiction.
_DECISIVE = frozenset({_ROWS, _COLUMNS, _ALLOCATED, _STORED, _SIGNED, _PLACE, _DIRECTION, _SPACING, _SLOPE, _INTERCEPT})
_DECISIVE |= {
    PIXEL_DATA,
    0x00020010,
    0x00080016,
    0x00080060,
    0x0020000E,
    0x00280102,
    0x00280002,
    0x00280004,
    0x00280008,
}


@dataclass(frozen=True)
class Witness:
    """One file as our own reader sees it."""

    source: Path
    file: DicomFile
    reading: Reading

    @classmethod
    def of(cls, source: Path, file: DicomFile, data: bytes) -> Witness:
        """Read a whole file.

        Raises:
            TruncatedFileError, CorruptFileError: its structure does not hold to the last byte.
        """
        try:
            reading = read_elements(data, max_inflated=MAX_INFLATED_BYTES)
        except CutShortError as error:
            raise TruncatedFileError(source, f"{file.label} is cut short: {error}.") from error
        except BrokenStructureError as error:
            raise CorruptFileError(source, f"{file.label} is damaged: {error}.") from error
        if twice := _DECISIVE & set(reading.doubled):
            listed = ", ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in sorted(twice))
            raise CorruptFileError(source, f"{file.label} says two different things: {listed} stands there twice.")
        return cls(source, file, reading)

    def confirm(self, header: SliceHeader) -> None:
        """Hold the facts of one slice against this reading.

        Raises:
            CorruptFileError: they differ.
        """
        own = self._groups(header.frame) if header.is_enhanced else [self.reading.elements] * 4
        size = self.reading.whole(_COLUMNS), self.reading.whole(_ROWS)
        if size != (header.columns, header.rows):
            raise self._differ("image size")
        place, direction, measures, values = own
        reach = (header.rows + header.columns) * max(header.spacing or (0.0,))
        self._same("place", header.position, decimals(place, _PLACE, 3), TOLERANCE_MM)
        self._same("direction", header.orientation, decimals(direction, _DIRECTION, 6), TOLERANCE_MM / max(reach, 1.0))
        self._same("pixel spacing", header.spacing, decimals(measures, _SPACING, 2), TOLERANCE_MM / header.rows)
        slope, intercept, _ = header.rescale
        self._same("rescale slope", _one(slope), decimals(values, _SLOPE, 1), 1e-9)
        self._same("rescale intercept", _one(intercept), decimals(values, _INTERCEPT, 1), 1e-6)

    def _groups(self, frame: int) -> list[Elements]:
        """The functional groups of a frame that say place, direction, measures and rescale."""
        frames, shared = (self.reading.elements.get(tag, ()) for tag in (FRAME_GROUPS, SHARED_GROUPS))
        homes: list[Elements] = [frames[frame] if len(frames) > frame else {}]  # type: ignore[list-item]
        homes += [shared[0]] if len(shared) else []  # type: ignore[list-item]
        wanted = (PLACE_GROUP, DIRECTION_GROUP, MEASURES_GROUP, RESCALE_GROUP)
        return [_first_item(homes, tag) for tag in wanted]

    def _same(
        self, what: str, theirs: tuple[float, ...] | None, ours: tuple[float, ...] | None, tolerance: float
    ) -> None:
        if theirs is None and ours is None:
            return
        if theirs is None or ours is None or max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) > tolerance:
            raise self._differ(what)

    def _differ(self, what: str) -> CorruptFileError:
        return CorruptFileError(self.source, f"two readers understand {self.file.label} differently: its {what}.")

    def native_pixels(self, frames: int) -> Array | None:
        """Stored numbers (frames, rows, columns) of uncompressed pixels, by our own reading; None for others."""
        pixels = self.reading.elements.get(PIXEL_DATA)
        rows, columns, bits, stored = (self.reading.whole(tag) for tag in (_ROWS, _COLUMNS, _ALLOCATED, _STORED))
        if not isinstance(pixels, memoryview) or not (rows and columns and stored) or bits not in (8, 16, 32):
            return None
        count = frames * rows * columns
        order = "<" if self.reading.little else ">"
        if len(pixels) < count * bits // 8:
            return None
        numbers = np.frombuffer(pixels, np.dtype(f"{order}u{bits // 8}"), count).reshape(frames, rows, columns)
        return _used_bits(numbers.astype(f"u{bits // 8}"), bits - stored, self.reading.whole(_SIGNED) == 1)


def _used_bits(numbers: Array, spare: int, signed: bool) -> Array:
    """Only the bits that are in use, the sign carried on; what lies above them may be anything."""
    if signed:
        moved = (numbers << spare).view(f"i{numbers.itemsize}")
        return np.asarray(moved >> spare)
    return np.asarray((numbers << spare) >> spare)


def _one(value: float | None) -> tuple[float, ...] | None:
    return None if value is None else (value,)


def _first_item(homes: list[Elements], tag: int) -> Elements:
    for home in homes:
        items = home.get(tag)
        if isinstance(items, tuple) and items and not isinstance(items[0], memoryview):
            return items[0]
    return {}
