"""RT structure set: the organs as contours in the scan's slices, for planning systems.

A contour lies half-way between voxels inside and outside; holes are cut in by keyholes. What is written is
read back, filled and compared with the mask.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from medseg.errors import OutputError
from medseg.exports.codes import Coded, code_of
from medseg.exports.contours import Polygon, polygons
from medseg.exports.identity import (
    MANUFACTURER,
    NOTICE,
    UTF_8,
    Maker,
    found,
    long_string,
    series_number,
    settled,
    uid_for,
)
from medseg.imaging.dicom_source import SourceSlices
from medseg.imaging.emit import emit
from medseg.imaging.rtstruct import RT_STRUCTURE_SET, read_rtstruct
from medseg.imaging.volume import Array, Geometry
from medseg.labels import Label
from medseg.results.segmentation import Segmentation

DECIMALS = 4
_CONTOUR_DATA = 0x30060050
_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"


def write_rtstruct(path: Path, result: Segmentation, source: SourceSlices) -> Path:
    """Write the organs that were found as one RT structure set.

    Args:
        path: where it is to appear.
        result: its volume must be the one that `source` describes.
        source: headers of the scan's slices.

    Raises:
        DataError: nothing was segmented, or the scan's slices name no study or frame of reference.
        OutputError: it could not be written, or its names or contours read back differently from the mask's.
    """
    labels, headers = found(result), settled(source.headers)
    dataset = _frame(result, headers)
    dataset.ReferencedFrameOfReferenceSequence = [_reference(headers)]
    frame = str(headers[0].FrameOfReferenceUID)
    dataset.StructureSetROISequence = [_roi(n, label, frame, Maker.of(result)) for n, label in enumerate(labels, 1)]
    dataset.ROIContourSequence = [_contours(n, label, result, headers) for n, label in enumerate(labels, 1)]
    dataset.RTROIObservationsSequence = [_observation(n, label) for n, label in enumerate(labels, 1)]
    write = partial(dataset.save_as, enforce_file_format=True)
    return emit(path, write, partial(_check, path, result, labels, source))


def _frame(result: Segmentation, headers: Sequence[Dataset]) -> FileDataset:
    """The object without its structures."""
    maker, now, first = Maker.of(result), datetime.datetime.now(), headers[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = RT_STRUCTURE_SET, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = uid_for(result, "RTSTRUCT", "instance")
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = UTF_8
    dataset.SOPClassUID, dataset.SOPInstanceUID = RT_STRUCTURE_SET, meta.MediaStorageSOPInstanceUID
    _repeat_study(dataset, first)
    dataset.Modality, dataset.Manufacturer = "RTSTRUCT", MANUFACTURER
    dataset.ManufacturerModelName, dataset.SoftwareVersions = maker.model[:64], maker.software
    dataset.SeriesInstanceUID = uid_for(result, "RTSTRUCT", "series")
    dataset.SeriesNumber, dataset.InstanceNumber = series_number(headers, 3), 1
    dataset.SeriesDescription, dataset.OperatorsName = maker.title, None
    dataset.FrameOfReferenceUID = first.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = first.get("PositionReferenceIndicator")
    dataset.StructureSetLabel, dataset.StructureSetDescription = "MEDSEG", NOTICE
    dataset.StructureSetDate = dataset.InstanceCreationDate = dataset.SeriesDate = now.strftime("%Y%m%d")
    dataset.StructureSetTime = dataset.InstanceCreationTime = dataset.SeriesTime = now.strftime("%H%M%S")
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _repeat_study(dataset: Dataset, first: Dataset) -> None:
    dataset.StudyInstanceUID = first.StudyInstanceUID
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        setattr(dataset, keyword, first.get(keyword))
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"):
        setattr(dataset, keyword, first.get(keyword))
    if first.get("StudyDescription"):
        dataset.StudyDescription = first.StudyDescription


def _item(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _image(header: Dataset) -> Dataset:
    return _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)


def _reference(headers: Sequence[Dataset]) -> Dataset:
    """Frame of reference, study, series, and every slice of it."""
    first = headers[0]
    images = [_image(header) for header in headers]
    series = _item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID=_DETACHED_STUDY,
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _roi(number: int, label: Label, frame: str, maker: Maker) -> Dataset:
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=frame,
        ROIName=long_string(label.name),
        ROIDescription=long_string(label.title),
        ROIGenerationAlgorithm="SEMIAUTOMATIC" if maker.by_hand else "AUTOMATIC",
        ROIGenerationDescription=maker.title,
    )


def _contours(number: int, label: Label, result: Segmentation, headers: Sequence[Dataset]) -> Dataset:
    sequence: list[Dataset] = []
    for k, polygon in _slices(result.mask == label.value):
        points = _millimetres(polygon, k, result.volume.geometry)
        contour = _item(
            ContourNumber=len(sequence) + 1,
            ContourImageSequence=[_image(headers[k])],
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=len(polygon),
        )
        contour[_CONTOUR_DATA] = _decimals(points)
        contour.set_original_encoding(False, True, "iso8859")  # so that the bytes are written as they are
        sequence.append(contour)
    return _item(ReferencedROINumber=number, ROIDisplayColor=list(label.colour), ContourSequence=sequence)


def _slices(mask: Array) -> Iterator[tuple[int, Polygon]]:
    for k in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        yield from ((k, polygon) for polygon in polygons(mask[:, :, k]))


def _millimetres(polygon: Polygon, k: int, geometry: Geometry) -> Array:
    affine = geometry.affine_lps
    return np.asarray(polygon @ affine[:3, :2].T + affine[:3, 2] * k + affine[:3, 3])


def _decimals(points: Array) -> RawDataElement:
    """The coordinates as bytes: pydicom would check each of a million numbers by itself."""
    text = "\\".join(f"{value:.{DECIMALS}f}" for value in points.ravel().tolist())
    value = text.encode() + b" " * (len(text) % 2)
    return RawDataElement(Tag(_CONTOUR_DATA), "DS", len(value), value, 0, False, True)


def _observation(number: int, label: Label) -> Dataset:
    code = code_of(label)
    identity = _code(code.type)
    if code.side is not None:
        identity.SegmentedPropertyTypeModifierCodeSequence = [_code(code.side)]
    return _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        # Never EXTERNAL, by which doses are reckoned: a "body" may be what is left of one beside fat, lungs and bone.
        RTROIInterpretedType="ORGAN",
        ROIInterpreter=None,
        RTROIIdentificationCodeSequence=[identity],
    )


def _code(code: Coded) -> Dataset:
    return _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme, CodeMeaning=code.meaning[:64])


def _check(path: Path, result: Segmentation, labels: list[Label], source: SourceSlices, temporary: Path) -> None:
    back = read_rtstruct(temporary, result.volume.geometry, series=str(source.first.SeriesInstanceUID))
    for structure, label in zip(back.structures, labels, strict=True):
        if structure.name != long_string(label.name):
            raise OutputError(f"{path}: {label.name} read back as {structure.name}.")
        if not np.array_equal(structure.mask, result.mask == label.value):
            raise OutputError(f"{path}: the contours of {label.name} do not enclose its voxels.")
