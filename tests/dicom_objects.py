"""RT structure sets and DICOM segmentations written by hand with pydicom, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medseg.imaging.rtstruct import RT_STRUCTURE_SET
from medseg.imaging.seg import LABEL_MAP, SEGMENTATION
from medseg.imaging.volume import Array, Geometry

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
Polygon = tuple[float, Sequence[tuple[float, float]]]
"""Slice k and points (i, j), in voxels."""


def item(**values: Any) -> Dataset:
    """A data set of these attributes."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def new_object(sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    return dataset


def write_rtstruct(
    path: Path,
    geometry: Geometry,
    regions: dict[str, Sequence[Polygon]],
    *,
    series: str = "",
    kind: str = "CLOSED_PLANAR",
) -> Path:
    """Contours given in voxels, written in millimetres."""
    dataset = new_object(RT_STRUCTURE_SET)
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetROISequence = [item(ROINumber=n, ROIName=name) for n, name in enumerate(regions, 1)]
    affine = LPS @ geometry.affine
    dataset.ROIContourSequence = [
        item(
            ReferencedROINumber=number,
            ROIDisplayColor=[10 * number, 20, 30],
            ContourSequence=[_contour(affine, polygon, kind) for polygon in polygons],
        )
        for number, polygons in enumerate(regions.values(), 1)
    ]
    if series:
        listed = item(RTReferencedSeriesSequence=[item(SeriesInstanceUID=series)])
        dataset.ReferencedFrameOfReferenceSequence = [item(RTReferencedStudySequence=[listed])]
    dataset.save_as(path, enforce_file_format=True)
    return path


def _contour(affine: Array, polygon: Polygon, kind: str) -> Dataset:
    k, points = polygon
    places = [(affine @ [i, j, k, 1])[:3] for i, j in points]
    data = [f"{value:.10g}"[:16] for place in places for value in place]
    return item(ContourGeometricType=kind, NumberOfContourPoints=len(points), ContourData=data)


def write_seg(
    path: Path,
    geometry: Geometry,
    masks: dict[str, Array],
    *,
    kind: str = "BINARY",
    series: str = "",
    order: Sequence[int] | None = None,
    shift_mm: Sequence[float] = (0.0, 0.0, 0.0),
) -> Path:
    """Masks on the geometry's grid; frames in the given order of slices, empty ones left out."""
    dataset = new_object(LABEL_MAP if kind == "LABELMAP" else SEGMENTATION)
    dataset.Modality, dataset.SegmentationType = "SEG", kind
    dataset.SegmentSequence = [_segment(number, name) for number, name in enumerate(masks, 1)]
    slices = list(order or range(geometry.shape[2]))
    frames = list(_frames(masks, slices, kind))
    dataset.Columns, dataset.Rows, dataset.NumberOfFrames = geometry.shape[0], geometry.shape[1], len(frames)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    _describe_grid(dataset, geometry, frames, shift_mm)
    _put_frames(dataset, np.stack([picture for _, _, picture in frames]), kind)
    if series:
        dataset.ReferencedSeriesSequence = [item(SeriesInstanceUID=series)]
    dataset.save_as(path, enforce_file_format=True)
    return path


def _segment(number: int, name: str) -> Dataset:
    code = item(CodeValue="2748008", CodingSchemeDesignator="SCT", CodeMeaning="Spinal cord")
    white = [65535, 32896, 32896]
    return item(
        SegmentNumber=number,
        SegmentLabel=name,
        SegmentedPropertyTypeCodeSequence=[code],
        RecommendedDisplayCIELabValue=white,
    )


def _frames(masks: dict[str, Array], slices: Sequence[int], kind: str) -> Any:
    if kind == "LABELMAP":
        labels = sum(mask.astype(np.uint8) * number for number, mask in enumerate(masks.values(), 1))
        yield from ((0, k, labels[:, :, k].T) for k in slices)
        return
    for number, mask in enumerate(masks.values(), 1):
        yield from ((number, k, mask[:, :, k].T) for k in slices if mask[:, :, k].any())


def _describe_grid(dataset: Dataset, geometry: Geometry, frames: Sequence[Any], shift_mm: Sequence[float]) -> None:
    affine = LPS @ geometry.affine
    axes = [*(affine[:3, 0] / geometry.spacing_mm[0]), *(affine[:3, 1] / geometry.spacing_mm[1])]
    spacing = [geometry.spacing_mm[1], geometry.spacing_mm[0]]
    shared = Dataset()
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=[f"{v:.10g}"[:16] for v in axes])]
    shared.PixelMeasuresSequence = [item(PixelSpacing=[f"{v:.10g}"[:16] for v in spacing])]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for number, k, _ in frames:
        place = (affine @ [0, 0, k, 1])[:3] + shift_mm
        own = item(PlanePositionSequence=[item(ImagePositionPatient=[f"{v:.10g}"[:16] for v in place])])
        if number:
            own.SegmentIdentificationSequence = [item(ReferencedSegmentNumber=number)]
        dataset.PerFrameFunctionalGroupsSequence.append(own)


def _put_frames(dataset: Dataset, pictures: Array, kind: str) -> None:
    bits = 1 if kind == "BINARY" else 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    if kind == "FRACTIONAL":
        dataset.MaximumFractionalValue = 200
        pictures = pictures.astype(np.uint8) * 120 + 40  # 160 of 200 inside, 40 of 200 outside
    packed = pack_bits(pictures.astype(np.uint8).ravel()) if kind == "BINARY" else pictures.astype(np.uint8).tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
