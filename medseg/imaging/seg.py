"""DICOM segmentations: the door for SEG objects (binary, fractional, label map). Each segment becomes a mask.

Frames are placed by their own position and orientation, never by their order.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medseg.errors import CorruptFileError, GeometryError, UnknownFormatError
from medseg.imaging.grid import check_size
from medseg.imaging.naming import printable
from medseg.imaging.rtstruct import open_dicom
from medseg.imaging.structures import Structure, StructureSet
from medseg.imaging.volume import Array, Finding, Geometry

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
HALF = 0.5
"""Share above which a voxel of a fractional segment belongs to it."""
OFF_GRID = 0.05
"""How far, in voxels, a frame's corner may lie off the scan's grid."""
_Segment = tuple[int, str, tuple[int, int, int] | None, str]  # number, name, colour, code


@dataclass(frozen=True)
class _Frame:
    """One frame: its number, its segment (None: a label map holds all), and (column, row, 1) -> voxel (i, j, k)."""

    number: int
    segment: int | None
    to_index: Array


def read_seg(path: Path, geometry: Geometry, *, series: str = "") -> StructureSet:
    """Read a DICOM segmentation onto the grid of the scan that it segments.

    Args:
        path: the DICOM file.
        geometry: of the scan.
        series: UID of the scan's series, where it is known: another one is refused.

    Raises:
        UnknownFormatError: no segmentation.
        CorruptFileError: it cannot be parsed or decoded, or what it says of its frames and segments does not agree.
        GeometryError: it belongs to another series, or its frames do not lie on the scan's voxels.
    """
    dataset = _open(path)
    _check_series(path, dataset, series)
    try:
        _check_frame_count(path, dataset)
        frames, outside = _frames(path, dataset, geometry)
        segments = _segments(path, dataset, frames)
        pixels = _pixels(path, dataset)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise CorruptFileError(path, "its frames or segments are not described as DICOM asks.") from error
    structures = tuple(
        Structure(name, number, colour, code, partial(_draw, geometry.shape, pixels, frames, number))
        for number, name, colour, code in segments
    )
    text = f"{outside} frames lie beyond the scan and were left out."
    return StructureSet(geometry, structures, (Finding("beyond_scan", text),) if outside else ())


def _open(path: Path) -> Dataset:
    try:
        return open_dicom(path, SEGMENTATION, "segmentation")
    except UnknownFormatError:
        return open_dicom(path, LABEL_MAP, "segmentation")


def segmented_series(dataset: Dataset) -> frozenset[str]:
    """UIDs of the series that a segmentation belongs to."""
    listed = dataset.get("ReferencedSeriesSequence", [])
    return frozenset(str(item.SeriesInstanceUID) for item in listed if item.get("SeriesInstanceUID"))


def _check_series(path: Path, dataset: Dataset, series: str) -> None:
    known = segmented_series(dataset)
    if series and known and series not in known:
        advice = "Give the segmentation that belongs to this scan."
        raise GeometryError(path, "segments another series than this scan.", advice=advice)


def _check_frame_count(path: Path, dataset: Dataset) -> None:
    count, described = int(dataset.get("NumberOfFrames", 1)), len(dataset.PerFrameFunctionalGroupsSequence)
    check_size(path, int(dataset.Rows) * int(dataset.Columns) * count)
    if count != described:
        raise CorruptFileError(path, f"holds {count:,} frames and describes {described:,}.")


def _is_label_map(dataset: Dataset) -> bool:
    return str(dataset.SOPClassUID) == LABEL_MAP or dataset.get("SegmentationType") == "LABELMAP"


def _segments(path: Path, dataset: Dataset, frames: Sequence[_Frame]) -> list[_Segment]:
    """What is described; the background of a label map, named by its padding value, is no segment."""
    segments = [_segment(item) for item in dataset.SegmentSequence]
    numbers = {segment[0] for segment in segments}
    least = 0 if _is_label_map(dataset) else 1
    if len(numbers) < len(segments) or any(number < least for number in numbers):
        raise CorruptFileError(path, f"does not number its segments from {least}, each once.")
    if strange := {frame.segment for frame in frames if frame.segment is not None} - numbers:
        listed = ", ".join(map(str, sorted(strange)))
        raise CorruptFileError(path, f"has frames of segments that it does not describe: {listed}.")
    background = dataset.get("PixelPaddingValue") if _is_label_map(dataset) else None
    return [segment for segment in segments if segment[0] != background]


def _segment(item: Dataset) -> _Segment:
    types = item.get("SegmentedPropertyTypeCodeSequence", [])
    code = str(types[0].get("CodeValue", "")) if types else ""
    return int(item.SegmentNumber), printable(str(item.get("SegmentLabel", ""))), _colour(item), code


def _colour(item: Dataset) -> tuple[int, int, int] | None:
    """RGB of a CIELab colour as DICOM packs it in three 16-bit numbers."""
    packed = item.get("RecommendedDisplayCIELabValue")
    if packed is None or len(packed) != 3:
        return None
    light, a, b = (float(part) / 65535 for part in packed)
    return lab_to_rgb(light * 100, a * 255 - 128, b * 255 - 128)


def lab_to_rgb(light: float, a: float, b: float) -> tuple[int, int, int]:
    """sRGB 0 ... 255 of CIELab (D50, as DICOM has it), clipped to what a screen shows."""
    y = (light + 16) / 116
    cubes = [v**3 if v > 6 / 29 else 3 * (6 / 29) ** 2 * (v - 4 / 29) for v in (y + a / 500, y, y - b / 200)]
    xyz = np.array(cubes) * [0.9642, 1.0, 0.8251]
    linear = np.clip(_D50_TO_SRGB @ xyz, 0, 1)
    red, green, blue = (
        round(255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055)) for v in linear.tolist()
    )
    return red, green, blue


# CIE XYZ under D50 to linear sRGB, adapted to D65 by Bradford.
_D50_TO_SRGB = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)


def _frames(path: Path, dataset: Dataset, geometry: Geometry) -> tuple[list[_Frame], int]:
    to_index = np.linalg.inv(geometry.affine_lps)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    frames, outside = [], 0
    for number, own in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        placed = to_index @ _frame_affine(shared, own)
        mapping, inside = _on_grid(path, placed, (int(dataset.Columns), int(dataset.Rows)), geometry)
        outside += not inside
        if inside and _is_label_map(dataset):
            frames.append(_Frame(number, None, mapping))
        elif inside:
            identity = _group(shared, own, "SegmentIdentificationSequence")
            frames.append(_Frame(number, int(identity.ReferencedSegmentNumber), mapping))
    return frames, outside


def _group(shared: Dataset, own: Dataset, name: str) -> Dataset:
    item: Dataset = (own.get(name) or shared[name].value)[0]
    return item


def _frame_affine(shared: Dataset, own: Dataset) -> Array:
    """(column, row, 1) -> LPS mm and 1."""
    position = [float(v) for v in _group(shared, own, "PlanePositionSequence").ImagePositionPatient]
    axes = np.array([float(v) for v in _group(shared, own, "PlaneOrientationSequence").ImageOrientationPatient])
    rows_mm, columns_mm = (float(v) for v in _group(shared, own, "PixelMeasuresSequence").PixelSpacing)
    affine = np.zeros((4, 3))
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = axes[:3] * columns_mm, axes[3:] * rows_mm, position
    affine[3, 2] = 1
    return affine


def _on_grid(path: Path, placed: Array, size: tuple[int, int], geometry: Geometry) -> tuple[Array, bool]:
    """The mapping in whole voxels, and whether all of the frame lies within the scan.

    Raises:
        GeometryError: the frame's pixels are not voxels of the scan, or it sticks out at a side.
    """
    whole = np.round(placed[:3])
    ends = np.array([[c, r, 1] for c in (0, size[0] - 1) for r in (0, size[1] - 1)]).T
    off = np.abs((placed[:3] - whole) @ ends).max()
    steps = np.abs(whole[:, :2])
    if off > OFF_GRID or not ((steps.sum(axis=0) == 1).all() and (steps.sum(axis=1) <= 1).all()):
        advice = "Give the segmentation of this very scan."
        raise GeometryError(path, "lies on another grid than this scan.", advice=advice)
    corners = whole @ ends
    within = (corners >= 0).all() and (corners < np.array(geometry.shape)[:, None]).all()
    if not within and _across(whole, corners, geometry):
        return whole, False
    if not within:
        raise GeometryError(path, "has frames that are larger than the slices of this scan.")
    return whole, True


def _across(whole: Array, corners: Array, geometry: Geometry) -> bool:
    """Whether a frame lies beyond the scan as a whole: before its first or behind its last slice."""
    axis = int(np.flatnonzero(np.abs(whole[:, :2]).sum(axis=1) == 0)[0])
    return bool(corners[axis, 0] < 0 or corners[axis, 0] >= geometry.shape[axis])


def _pixels(path: Path, dataset: Dataset) -> Array:
    """[frame, row, column]: of shares, only whether they reach one half."""
    try:
        with warnings.catch_warnings(action="ignore"):
            pixels: Any = dataset.pixel_array
    except Exception as error:  # the decoders raise whatever they like
        raise CorruptFileError(path, "its pixels cannot be decoded.") from error
    pixels = pixels.reshape(-1, int(dataset.Rows), int(dataset.Columns))
    if dataset.get("SegmentationType") == "FRACTIONAL":
        pixels = (pixels >= HALF * _whole_voxel(path, dataset)).astype(np.uint8)
    return np.asarray(pixels)


def _whole_voxel(path: Path, dataset: Dataset) -> float:
    """The value of a voxel that belongs to its segment as a whole."""
    value = dataset.get("MaximumFractionalValue")
    if not value:
        raise CorruptFileError(path, "holds shares of voxels and does not say which value is a whole one.")
    return float(value)


def _draw(shape: tuple[int, int, int], pixels: Array, frames: Sequence[_Frame], segment: int) -> Array:
    mask = np.zeros(shape, bool)
    for frame in frames:
        if frame.segment is None:
            _place(mask, frame, pixels[frame.number] == segment)
        elif frame.segment == segment:
            _place(mask, frame, pixels[frame.number] > 0)
    return mask


def _place(mask: Array, frame: _Frame, picture: Array) -> None:
    rows, columns = np.nonzero(picture)
    i, j, k = (frame.to_index @ np.stack([columns, rows, np.ones_like(rows)])).astype(int)
    mask[i, j, k] = True
