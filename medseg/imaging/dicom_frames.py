"""Enhanced CT: a multi-frame object is as many slices as it has frames; functional groups say where each lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydicom.dataset import Dataset

from medseg.errors import CorruptFileError
from medseg.imaging.dicom_headers import SPLIT_TAGS, SliceHeader, image_type, number, numbers, rescale_of, text

_PHASES = {
    "AcquisitionNumber": "FrameAcquisitionNumber",
    "TemporalPositionIdentifier": "TemporalPositionIndex",
}
"""What tells phases apart in one frame's content, by the name that it has in single-frame files."""


def frame_headers(source: Path, header: SliceHeader, dataset: Dataset) -> tuple[SliceHeader, ...]:
    """One header for each frame.

    Args:
        source: what the user gave, for the text of an error.
        header: what the object says as a whole.
        dataset: with its functional groups.

    Raises:
        CorruptFileError: the groups do not fit the number of frames.
    """
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if len(groups) != header.frames:
        reason = f"{header.file.label} says that it has {header.frames} frames and describes {len(groups)}."
        raise CorruptFileError(source, reason)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return tuple(_frame(header, n, group, shared) for n, group in enumerate(groups))


def _frame(header: SliceHeader, n: int, own: Dataset, shared: Dataset) -> SliceHeader:
    def group(keyword: str) -> Dataset:
        return next(_first(own, shared, keyword), Dataset())

    measures, kind = group("PixelMeasuresSequence"), image_type(group("CTImageFrameTypeSequence"), "FrameType")
    content = group("FrameContentSequence")
    claims = replace(header.claims, instance=None, between_mm=None, images=None)
    return replace(
        header,
        frame=n,
        image_type=kind if any(kind) else header.image_type,
        position=numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing=numbers(measures, "PixelSpacing", 2),
        rescale=rescale_of(group("PixelValueTransformationSequence")),
        splits=tuple(text(content, _PHASES[tag]) if tag in _PHASES else "" for tag in SPLIT_TAGS),
        claims=replace(claims, thickness_mm=number(measures, "SliceThickness")),
    )


def _first(own: Dataset, shared: Dataset, keyword: str) -> Iterator[Dataset]:
    """The item of a group, the frame's own before the shared one."""
    for place in (own, shared):
        if items := place.get(keyword):
            yield items[0]
