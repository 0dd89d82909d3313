"""DICOM SEG: the mask as an object of the scan's own study, for archives and viewers.

`BINARY` is what every reader understands; `LABELMAP` (2023) is smaller and made for many organs. Every slice
of the scan is referred to, and each frame lies where its slice lies. What is written is read back and compared.
"""

from __future__ import annotations

import warnings
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from medseg.errors import OutputError
from medseg.exports.codes import Coded, code_of
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
from medseg.exports.libraries import highdicom_library
from medseg.imaging.dicom_source import SourceSlices
from medseg.imaging.emit import emit
from medseg.imaging.seg import read_seg
from medseg.imaging.volume import Array
from medseg.labels import Label
from medseg.results.segmentation import Segmentation

Kind = Literal["BINARY", "LABELMAP"]


def write_dicom_seg(path: Path, result: Segmentation, source: SourceSlices, kind: Kind = "BINARY") -> Path:
    """Write the organs that were found as one DICOM segmentation.

    Args:
        path: where it is to appear.
        result: its volume must be the one that `source` describes.
        source: headers of the scan's slices.
        kind: encoding of the frames.

    Raises:
        DataError: nothing was segmented, or the scan's slices name no study or frame of reference.
        OutputError: it could not be written, or reads back differently.
        ConfigError: highdicom is not installed.
    """
    labels = found(result)
    dataset = _build(result, source, labels, kind)
    return emit(path, partial(_save, dataset), partial(_check, path, result, labels, source))


def _save(dataset: Dataset, path: Path) -> None:
    dataset.save_as(path, enforce_file_format=True)


def _build(result: Segmentation, source: SourceSlices, labels: list[Label], kind: Kind) -> Dataset:
    highdicom, maker, headers = highdicom_library(), Maker.of(result), settled(source.headers)
    with warnings.catch_warnings(action="ignore"):  # of odd values in the scan's own headers
        dataset = highdicom.seg.Segmentation(
            source_images=headers,
            pixel_array=_numbered(result.mask, labels),
            segmentation_type=kind,
            segment_descriptions=[_describe(number, label, maker) for number, label in enumerate(labels, 1)],
            series_instance_uid=uid_for(result, kind, "series"),
            series_number=series_number(headers, 1 if kind == "BINARY" else 2),
            sop_instance_uid=uid_for(result, kind, "instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=maker.model[:64],
            software_versions=maker.software,
            device_serial_number="0",
            content_label="MEDSEG",
            content_description=NOTICE,
            series_description=maker.title,
            specific_character_set=UTF_8,
            transfer_syntax_uid=RLELossless if kind == "LABELMAP" else ExplicitVRLittleEndian,
        )
    for item, label in zip(_segments(dataset), labels, strict=True):
        _add_side(item, label)
    _decode_items(dataset)
    return dataset  # type: ignore[no-any-return]


def _decode_items(dataset: Dataset) -> None:
    """Turn what was copied from the scan into text: until looked at, it is bytes in the scan's own character set."""
    for element in dataset:
        if element.VR == "SQ" and element.keyword != "PerFrameFunctionalGroupsSequence":
            for item in element.value:
                deque(item.iterall(), maxlen=0)


def _segments(dataset: Dataset) -> list[Dataset]:
    """Without the background that a label map may list."""
    return [item for item in dataset.SegmentSequence if int(item.SegmentNumber) > 0]


def _numbered(mask: Array, labels: list[Label]) -> Array:
    """[slice, row, column] with the segments' numbers: 1, 2, 3 ... in the order of `labels`."""
    table = np.zeros(256, np.uint8)
    for number, label in enumerate(labels, 1):
        table[label.value] = number
    return np.ascontiguousarray(table[mask].transpose(2, 1, 0))


def _describe(number: int, label: Label, maker: Maker) -> Any:
    highdicom, code = highdicom_library(), code_of(label)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=maker.model[:64],
        family=Code("113076", "DCM", "Segmentation"),
        version=maker.version or "unknown",
        source="medseg",
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=long_string(label.title),
        segmented_property_category=_coded(code.category),
        segmented_property_type=_coded(code.type),
        algorithm_type="SEMIAUTOMATIC" if maker.by_hand else "AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor.from_rgb(*label.colour),
    )


def _coded(code: Coded) -> Code:
    return Code(code.value, code.scheme, code.meaning[:64])


def _add_side(item: Dataset, label: Label) -> None:
    side = code_of(label).side
    if side is not None:
        modifier = Dataset()
        modifier.CodeValue, modifier.CodingSchemeDesignator, modifier.CodeMeaning = (
            side.value,
            side.scheme,
            side.meaning,
        )
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]


def _check(path: Path, result: Segmentation, labels: list[Label], source: SourceSlices, temporary: Path) -> None:
    back = read_seg(temporary, result.volume.geometry, series=str(source.first.SeriesInstanceUID))
    names = [long_string(label.title) for label in labels]
    same = [structure.name for structure in back.structures if structure.number > 0] == names and all(
        np.array_equal(structure.mask, result.mask == label.value)
        for structure, label in zip((s for s in back.structures if s.number > 0), labels, strict=True)
    )
    if not same:
        raise OutputError(f"{path} read back differently from what was written.")
