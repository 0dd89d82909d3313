"""A DICOM study with what was drawn on it: the scan, and the masks of its RT structure sets and segmentations.

The scan is read as every scan is (see `reader`); the drawings of the very series that was read, and no others, count.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from medseg.errors import DataError, MedsegError, NoReferenceError
from medseg.imaging.dicom_source import dicom_files
from medseg.imaging.reader import read_volume
from medseg.imaging.rtstruct import RT_STRUCTURE_SET, read_rtstruct, referenced_series
from medseg.imaging.seg import LABEL_MAP, SEGMENTATION, read_seg, segmented_series
from medseg.imaging.structures import Structure, StructureSet
from medseg.imaging.volume import Finding, Volume

_DRAWINGS = (RT_STRUCTURE_SET, SEGMENTATION, LABEL_MAP)
# All that is read of a file which is no drawing; of drawings also where they belong.
_TAGS = ["SOPClassUID", "PatientID", "ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence"]


@dataclass(frozen=True)
class DrawnStudy:
    """A scan and what was drawn on it.

    Attributes:
        volume: the scan.
        structures: of all drawings on it, each name once.
        findings: what the drawings' readers noticed.
        patient: to tell whether two studies are one patient's; never shown, never written.
    """

    volume: Volume
    structures: tuple[Structure, ...]
    findings: tuple[Finding, ...]
    patient: str = field(default="", repr=False)


@dataclass(frozen=True)
class _Drawing:
    path: Path
    label: str
    sop_class: str
    series: frozenset[str]


def read_study(path: Path) -> DrawnStudy:
    """Read a study that holds one scan and structures drawn on it.

    Args:
        path: a DICOM folder or a zip of one; RTSTRUCT and SEG objects lie among the slices or below.

    Raises:
        NoReferenceError: nothing is drawn on it.
        InputError: the scan or a drawing cannot be read, or they do not fit together.
        DataError: drawings on several series, or two structures of one name.
    """
    with dicom_files(path) as files, warnings.catch_warnings(action="ignore"):
        heads = [(file, _head(file.path)) for file in files]
        drawings = [
            _Drawing(file.path, file.label, str(head.get("SOPClassUID", "")), _belongs_to(head))
            for file, head in heads
            if str(head.get("SOPClassUID", "")) in _DRAWINGS
        ]
        patient = next((str(head.PatientID) for _, head in heads if head.get("PatientID")), "")
        if not drawings:
            raise NoReferenceError(f"{path.name}: holds no RTSTRUCT and no DICOM SEG.")
        volume = read_volume(path, series=_series(path, drawings))
        sets = [_read(path.name, drawing, volume) for drawing in drawings]
    structures = tuple(structure for each in sets for structure in each.structures)
    if twice := sorted(name for name, count in Counter(s.name for s in structures).items() if count > 1):
        advice = "Keep the drawing that is to count, and move the others away."
        raise DataError(f"{path.name}: drawn more than once: {', '.join(twice)}.", advice=advice)
    return DrawnStudy(volume, structures, tuple(finding for each in sets for finding in each.findings), patient)


def _head(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except (OSError, MemoryError):
        raise
    except Exception:  # the scan's reader says what is wrong with it, in its own words
        return Dataset()


def _belongs_to(head: Dataset) -> frozenset[str]:
    return referenced_series(head) | segmented_series(head)


def _series(path: Path, drawings: Sequence[_Drawing]) -> str | None:
    """The series on which everything was drawn; None where the drawings do not say."""
    known = {uid for drawing in drawings for uid in drawing.series}
    if len(known) > 1:
        raise DataError(
            f"{path.name}: its drawings belong to {len(known)} different series.",
            advice="Give each series with its drawings in a folder of its own.",
        )
    return next(iter(known), None)


def _read(study: str, drawing: _Drawing, volume: Volume) -> StructureSet:
    read = read_rtstruct if drawing.sop_class == RT_STRUCTURE_SET else read_seg
    try:
        return read(drawing.path, volume.geometry, series=volume.series)
    except MedsegError as error:
        # Out of a zip the file has a name of ours, which says nothing to anybody.
        error.message = f"{study}: {error.message.replace(drawing.path.name, drawing.label, 1)}"
        raise
