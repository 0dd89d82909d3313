"""RT structure sets: the door for contours. Each becomes a mask on the scan's grid.

A voxel belongs to a structure when its centre lies inside an odd number of the structure's contours in its slice:
a contour within another is a hole, and a keyhole contour is what it looks like. One that is there twice counts once.
"""

from __future__ import annotations

import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from medseg.errors import CorruptFileError, GeometryError, TruncatedFileError, UnknownFormatError
from medseg.imaging.dicom_elements import BrokenStructureError, CutShortError, read_elements, tag_name
from medseg.imaging.dicom_headers import MAX_INFLATED_BYTES
from medseg.imaging.naming import printable
from medseg.imaging.sniff import HEAD_BYTES, sniff_bytes
from medseg.imaging.structures import Structure, StructureSet
from medseg.imaging.volume import Array, Finding, Geometry

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
FLAT = 0.25
"""How far, in slices, the points of one contour may lie apart across its plane."""
SAME_PLANE = 0.05
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True)
class Contour:
    """One closed polygon in voxel units: points (i, j) in the plane `k`, which need not be whole."""

    points: Array
    k: float


def read_rtstruct(path: Path, geometry: Geometry, *, series: str = "") -> StructureSet:
    """Read an RT structure set onto the grid of the scan on which it was drawn.

    Args:
        path: the DICOM file.
        geometry: of the scan; its slices are the planes of the contours.
        series: UID of the scan's series, where it is known: another one is refused.

    Raises:
        UnknownFormatError: no RT structure set.
        CorruptFileError: it cannot be parsed, or a contour is none.
        GeometryError: it was drawn on another series or across the slices.
    """
    dataset = open_dicom(path, RT_STRUCTURE_SET, "RT structure set")
    _check_series(path, dataset, series)
    try:
        return _read_regions(path, dataset, geometry)
    except (AttributeError, TypeError, ValueError, struct.error) as error:
        raise CorruptFileError(path, "its structures are not described as DICOM asks.") from error


def _read_regions(path: Path, dataset: Dataset, geometry: Geometry) -> StructureSet:
    names = {int(roi.ROINumber): roi for roi in dataset.get("StructureSetROISequence", [])}
    codes = _codes(dataset)
    to_index = np.linalg.inv(geometry.affine_lps)
    structures, findings = [], []
    for entry in dataset.get("ROIContourSequence", []):
        number = int(entry.ReferencedROINumber)
        name = printable(str(names[number].get("ROIName", number))) if number in names else str(number)
        contours = [_contour(path, name, item, to_index) for item in _closed(entry)]
        planes, said = _planes(path, name, contours, geometry)
        findings += [*said, *_other_shapes(name, entry)]
        draw = partial(_draw, geometry.shape, planes)
        structures.append(Structure(name, number, _colour(entry), codes.get(number, ""), draw))
    return StructureSet(geometry, tuple(structures), tuple(findings))


def open_dicom(path: Path, sop_class: str, words: str) -> Dataset:
    """Parse a whole DICOM object of one class.

    Raises:
        UnknownFormatError: it is another kind of object.
        TruncatedFileError: it ends within an element.
        CorruptFileError: it cannot be parsed, or contradicts itself.
    """
    _check_whole(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            dataset = pydicom.dcmread(path)
            found = str(dataset.get("SOPClassUID", ""))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # pydicom passes on whatever its parsing stumbles over
        raise CorruptFileError(path, f"cannot be parsed as a DICOM {words}.") from error
    if found != sop_class:
        raise UnknownFormatError(path, f"is no DICOM {words}.", advice=f"Give a DICOM {words}.")
    return dataset


def _check_whole(path: Path) -> None:
    """pydicom takes a sequence that the end of the file cuts off for a short one, and contours would be missing."""
    content = path.read_bytes()
    if sniff_bytes(content[:HEAD_BYTES]) != "dicom":
        return  # said by the parser, in its words
    try:
        reading = read_elements(content, max_inflated=MAX_INFLATED_BYTES)
    except CutShortError as error:
        raise TruncatedFileError(path, "ends within an element.") from error
    except BrokenStructureError as error:
        raise CorruptFileError(path, f"is damaged: {error}.") from error
    if reading.doubled:
        listed = ", ".join(map(tag_name, sorted(set(reading.doubled))))
        raise CorruptFileError(path, f"says two different things: {listed} stands there twice.")


def referenced_series(dataset: Dataset) -> frozenset[str]:
    """UIDs of the series on which a structure set was drawn."""
    frames = dataset.get("ReferencedFrameOfReferenceSequence", [])
    studies = [study for frame in frames for study in frame.get("RTReferencedStudySequence", [])]
    listed = [item for study in studies for item in study.get("RTReferencedSeriesSequence", [])]
    return frozenset(str(item.SeriesInstanceUID) for item in listed if item.get("SeriesInstanceUID"))


def _check_series(path: Path, dataset: Dataset, series: str) -> None:
    known = referenced_series(dataset)
    if series and known and series not in known:
        advice = "Give the structure set that belongs to this scan."
        raise GeometryError(path, "was drawn on another series than this scan.", advice=advice)


def _codes(dataset: Dataset) -> dict[int, str]:
    """ROI number -> SNOMED CT code of its anatomy."""
    found = {}
    for item in dataset.get("RTROIObservationsSequence", []):
        for code in item.get("RTROIIdentificationCodeSequence", []):
            if code.get("CodingSchemeDesignator") in ("SCT", "SRT"):
                found[int(item.ReferencedROINumber)] = str(code.get("CodeValue", ""))
    return found


def _colour(entry: Dataset) -> tuple[int, int, int] | None:
    colour = entry.get("ROIDisplayColor")
    if colour is None or len(colour) != 3:
        return None
    red, green, blue = (min(255, max(0, int(part))) for part in colour)
    return red, green, blue


def _closed(entry: Dataset) -> Iterator[Dataset]:
    for item in entry.get("ContourSequence", []):
        if str(item.get("ContourGeometricType", "")).startswith(_CLOSED):
            yield item


def _other_shapes(name: str, entry: Dataset) -> list[Finding]:
    kinds = Counter(str(item.get("ContourGeometricType", "?")) for item in entry.get("ContourSequence", []))
    others = {kind: count for kind, count in kinds.items() if not kind.startswith(_CLOSED)}
    text = ", ".join(f"{count} x {printable(kind)}" for kind, count in sorted(others.items()))
    return [Finding("no_area", f"{name}: {text} enclose nothing and were left out.")] if others else []


def _contour(path: Path, name: str, item: Dataset, to_index: Array) -> Contour:
    try:
        points = _numbers(item).reshape(-1, 3)
    except (AttributeError, TypeError, ValueError) as error:
        raise CorruptFileError(path, f"a contour of {name} is no list of points.") from error
    if len(points) == 0 or not np.isfinite(points).all():
        raise CorruptFileError(path, f"a contour of {name} has no valid points.")
    index = points @ to_index[:3, :3].T + to_index[:3, 3]
    if np.ptp(index[:, 2]) > 2 * FLAT:
        raise GeometryError(path, f"a contour of {name} runs across the slices of the scan.")
    return Contour(index[:, :2], float(index[:, 2].mean()))


def _numbers(item: Dataset) -> Array:
    """The coordinates, taken from the bytes: pydicom makes an object of each of a million numbers."""
    element = item.get_item("ContourData")
    if isinstance(element, RawDataElement):
        return np.array((element.value or b"").split(b"\\")).astype(np.float64)
    return np.array([float(value) for value in item.ContourData], dtype=np.float64)


def _planes(
    path: Path, name: str, contours: Sequence[Contour], geometry: Geometry
) -> tuple[dict[int, list[Array]], list[Finding]]:
    """The polygons of every slice, and what to say about those that have none."""
    planes: dict[int, list[Contour]] = {}
    for contour in contours:
        planes.setdefault(round(contour.k), []).append(contour)
    within = {k: found for k, found in planes.items() if 0 <= k < geometry.shape[2]}
    if contours and not within:
        raise GeometryError(path, f"{name} lies wholly outside this scan.")
    nearest = {k: _nearest_plane(k, found) for k, found in within.items()}
    once = {k: _once([contour.points for contour in found]) for k, found in nearest.items()}
    counts = [sum(map(len, left.values())) for left in (planes, within, nearest, once)]
    findings = [*_left_out(name, counts), *_gaps(name, sorted(once)), *_crossed(name, once, geometry.shape[:2])]
    return once, findings


def _left_out(name: str, counts: Sequence[int]) -> Iterator[Finding]:
    """`counts` of contours: all, those within the scan, those of the nearest planes, those that stand there once."""
    beyond, between, repeated = (before - after for before, after in pairwise(counts))
    if beyond:
        yield Finding("beyond_scan", f"{name}: {beyond} of {counts[0]} contours lie beyond the scan.")
    if between:
        text = f"{name}: {between} contours lie between the slices, where another lies nearer; they were left out."
        yield Finding("between_slices", text)
    if repeated:
        yield Finding(
            "repeated_contours", f"{name}: {repeated} contour(s) repeat another of the same slice; each was drawn once."
        )


def _gaps(name: str, slices: Sequence[int]) -> Iterator[Finding]:
    """Slices without a contour between others: left out by hand, or between the parts of what has several."""
    steps = np.diff(slices)
    gaps = steps[steps > 1] - 1
    if len(gaps) > 1 and (steps == steps[0]).all():
        text = f"{name} is contoured on one slice in {steps[0]} only; nothing is drawn between them."
        yield Finding("sparse_contours", text)
    elif len(gaps):
        span, widths = slices[-1] - slices[0] + 1, ", ".join(map(str, gaps))
        text = f"{name} has no contour on {gaps.sum()} of its {span} slices (gaps of {widths}); nothing is drawn there."
        yield Finding("sparse_contours", text)


def _nearest_plane(k: int, contours: Sequence[Contour]) -> list[Contour]:
    """Contours of two planes that round to one slice must not cancel each other: the nearer plane counts."""
    best = min(contours, key=lambda contour: abs(contour.k - k))
    return [contour for contour in contours if abs(contour.k - best.k) < SAME_PLANE]


def _once(polygons: Sequence[Array]) -> list[Array]:
    """The polygons without those that are there already: an even number of the same would cancel each other.

    The same is who has the same points, whichever comes first and whichever way round they are drawn.
    """
    if len(polygons) < 2:
        return list(polygons)
    return list({np.unique(np.round(points, 3) + 0.0, axis=0).tobytes(): points for points in polygons}.values())


def _crossed(name: str, planes: dict[int, list[Array]], shape: tuple[int, int]) -> Iterator[Finding]:
    shared = [_shared(polygons, shape) for polygons in planes.values() if len(polygons) > 1]
    if any(shared):
        where = f"contours cross on {np.count_nonzero(shared)} slice(s)"
        text = f"{name}: {where}; what two share ({sum(shared):,} voxels) is left out."
        yield Finding("crossing_contours", text)


def _shared(polygons: Sequence[Array], shape: tuple[int, int]) -> int:
    """Pixels that two polygons share of which neither lies within the other."""
    low, high = (np.array([end(points, axis=0) for points in polygons]) for end in (np.min, np.max))
    reach = (low[:, None] < high[None]).all(axis=2)
    pairs = np.argwhere(np.triu(reach & reach.T, 1))
    return sum(_common(polygons[a], polygons[b], shape) for a, b in pairs)


def _common(a: Array, b: Array, shape: tuple[int, int]) -> int:
    # Around the smaller one alone, with a margin: whatever crosses it shows there, and a body outline takes no time.
    small, large = sorted((a, b), key=lambda points: float(np.prod(np.ptp(points, axis=0))))
    low = np.clip(np.floor(small.min(axis=0)) - 1, 0, shape).astype(int)
    i, j = np.clip(np.ceil(small.max(axis=0)) + 2, low, shape).astype(int) - low
    one, other = (fill([points - low], (i, j)) for points in (small, large))
    crosses = (one & ~other).any() and (other & ~one).any()
    return int((one & other).sum()) if crosses else 0


def _draw(shape: tuple[int, int, int], planes: dict[int, list[Array]]) -> Array:
    mask = np.zeros(shape, bool)
    for k, polygons in planes.items():
        mask[:, :, k] = fill(polygons, shape[:2])
    return mask


def fill(polygons: Sequence[Array], shape: tuple[int, int]) -> Array:
    """Pixels (i, j) whose centres lie inside an odd number of polygons.

    Args:
        polygons: points (n, 2) in pixel units, closed by themselves.
        shape: of the picture.
    """
    # A row's crossings flip all pixels to their right, so that a running sum along i gives the count at each.
    flips = np.zeros((shape[0] + 1, shape[1]), np.int32)
    for polygon in polygons:
        i, j = _crossings(polygon, shape[1])
        np.add.at(flips, (np.clip(np.ceil(i), 0, shape[0]).astype(int), j), 1)
    return np.asarray(np.cumsum(flips[:-1], axis=0) % 2 == 1)


def _crossings(polygon: Array, rows: int) -> tuple[Array, Array]:
    """Where the polygon's edges cross the lines j = 0, 1, 2 ...: i of each, and j."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    # An edge owns the lines from its lower end (included) to its upper one (excluded).
    first, last = np.clip(np.ceil(low), 0, rows).astype(int), np.clip(np.ceil(high), 0, rows).astype(int)
    count = last - first
    edge = np.repeat(np.arange(len(polygon)), count)
    j = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    a, b = start[edge], end[edge]
    share = (j - a[:, 1]) / (b[:, 1] - a[:, 1])
    return a[:, 0] + share * (b[:, 0] - a[:, 0]), j
