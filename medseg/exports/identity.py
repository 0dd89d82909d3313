"""Who made a DICOM object, from what, and under which numbers: what segmentations and structure sets share."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import validate_value

from medseg.errors import DataError
from medseg.imaging.naming import printable
from medseg.labels import Label
from medseg.results.segmentation import Segmentation
from medseg.runtime.provenance import versions

MANUFACTURER = "medseg"
NOTICE = "Research use only. Not a medical device."
UTF_8 = "ISO_IR 192"
"""Character set of every object: the scan's own may lack the letters of the organs' names."""
# What ties an object to the scan.
_NEEDED = {
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "FrameOfReferenceUID": "frame of reference",
    "SOPClassUID": "SOP class",
    "SOPInstanceUID": "SOP instance",
}
# Of patient and study, what every object of the study repeats; empty where the slices do not say it.
_STUDY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


@dataclass(frozen=True)
class Maker:
    """The model and program behind a result.

    Attributes:
        model, version: of the model.
        by_hand: a person changed the result afterwards.
    """

    model: str
    version: str
    by_hand: bool

    @classmethod
    def of(cls, result: Segmentation) -> Maker:
        model = result.run.get("model", {})
        return cls(str(model.get("name", "unknown")), str(model.get("version", "")), "corrected" in result.run)

    @property
    def title(self) -> str:
        """For series descriptions: at most 64 characters."""
        return f"{self.model} {self.version}{' corrected' if self.by_hand else ''}"[:64]

    @property
    def software(self) -> str:
        return f"medseg {versions().get('medseg', '')}"


def found(result: Segmentation) -> list[Label]:
    """The organs that have a voxel.

    Raises:
        DataError: none has.
    """
    present = set(np.flatnonzero(np.bincount(result.mask.ravel())).tolist())
    labels = [label for label in result.labels if label.value in present]
    if not labels:
        raise DataError("Nothing was segmented: there is nothing to put into a DICOM object.")
    return labels


def settled(headers: Sequence[Dataset]) -> list[Dataset]:
    """Copies of the slices' headers in which nothing that an object must repeat is missing.

    Raises:
        DataError: a slice names no study, series, frame of reference or instance: nothing can be tied to it.
    """
    for keyword, words in _NEEDED.items():
        if not all(header.get(keyword) for header in headers):
            raise DataError(f"The scan's slices name no {words} ({keyword}), which every derived DICOM object needs.")
    done = []
    for header in headers:
        whole = copy.copy(header)
        for keyword in _STUDY:
            if not _is_valid(header, keyword):
                setattr(whole, keyword, None)
        done.append(whole)
    return done


def _is_valid(header: Dataset, keyword: str) -> bool:
    """A value that DICOM forbids is left empty in what is derived: half an identifier would be another's."""
    if keyword not in header:
        return False
    element = header[keyword]
    try:
        validate_value(element.VR, element.value, config.RAISE)
    except ValueError:
        return False
    return True


def long_string(text: str) -> str:
    """A name as a DICOM text of at most 64 characters: a backslash would part it in two."""
    return printable(text[:64]).replace("\\", "_").strip()


def uid_for(result: Segmentation, kind: str, part: str) -> UID:
    """The same UID for the same mask, model and kind of object, so that sending it twice makes no second copy."""
    mask = hashlib.sha256(result.mask.tobytes()).hexdigest()
    return generate_uid(entropy_srcs=[kind, part, mask, Maker.of(result).title, result.volume.sha256])


def series_number(headers: Sequence[Dataset], offset: int) -> int:
    """Behind the scan's own number, so that the object is listed after it."""
    own = int(headers[0].get("SeriesNumber") or 0)
    return min(max(own, 0), 900_000) * 10 + offset
