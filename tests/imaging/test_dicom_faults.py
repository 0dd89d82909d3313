"""DICOM folders as they should not be: refused by name, naming the file that is to blame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    EnhancedCTImageStorage,
    MRImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
)

from medseg import errors
from medseg.imaging import read_volume
from tests.dicom_edits import Edit, lean, of_class, only, tags
from tests.phantoms import phantom_volume, write_dicom_series

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")


def _shifted_in_depth(dataset: pydicom.Dataset, k: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z + (7.5 * (k - 8) if k > 8 else 0)]


def _jitter(dataset: pydicom.Dataset, k: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z + 1.0 * (k == 9)]


def _named(fault: Edit, tilt: float) -> Edit:
    def both(dataset: pydicom.Dataset, k: int) -> None:
        fault(dataset, k)
        dataset.GantryDetectorTilt = tilt

    return both


def _steep(dataset: pydicom.Dataset, k: int) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, "0.5", f"{np.sin(np.pi / 3):.9f}"]


def _askew(dataset: pydicom.Dataset, k: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x + k, y + k, z]


def _short_pixels(dataset: pydicom.Dataset, k: int) -> None:
    dataset.PixelData = dataset.PixelData[:100]


def _smaller(dataset: pydicom.Dataset, k: int) -> None:
    dataset.Rows, dataset.PixelData = 10, dataset.PixelData[: 10 * 24 * 2]


def _wrong_sign(dataset: pydicom.Dataset, k: int) -> None:
    dataset.PixelRepresentation, dataset.RescaleIntercept = 0, 0
    dataset.PixelData = SMALL.hu[:, :, k].T.astype("<i2").tobytes()


@dataclass(frozen=True)
class Fault:
    kind: type[errors.InputError]
    words: str
    fault: Edit | None = None
    skip: tuple[int, ...] = ()


FAULTS: dict[str, Fault] = {
    "a slice missing": Fault(errors.MissingSlicesError, "1 slice(s) are missing after slice 9 of 17", skip=(9,)),
    "three slices missing": Fault(errors.MissingSlicesError, "3 slice(s) are missing", skip=(9, 10, 14)),
    "only one slice": Fault(errors.NotVolumeError, "single slice", skip=tuple(range(1, 18))),
    "wider from the middle on": Fault(errors.GeometryError, "one even spacing", _shifted_in_depth),
    "one slice off": Fault(errors.GeometryError, "one even spacing", _jitter),
    "tilt that the header contradicts": Fault(errors.GantryTiltError, "their header names 3", _named(lean, 3)),
    "sheared by 60 degrees": Fault(errors.GantryTiltError, "60.0 degrees", _steep),
    "sheared along both axes": Fault(errors.GantryTiltError, "not along one axis", _askew),
    "no position": Fault(errors.GeometryError, "ImagePositionPatient", tags(ImagePositionPatient=None)),
    "no position in one": Fault(
        errors.GeometryError, "IM0004.dcm has no place", only(4, tags(ImagePositionPatient=None))
    ),
    "no orientation": Fault(errors.GeometryError, "ImageOrientationPatient", tags(ImageOrientationPatient=None)),
    "axes not at right angles": Fault(
        errors.GeometryError, "right-angled", tags(ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0])
    ),
    "no pixel spacing": Fault(errors.GeometryError, "PixelSpacing", tags(PixelSpacing=None)),
    "pixel spacing 0": Fault(errors.GeometryError, "pixel spacing", tags(PixelSpacing=[0, 0])),
    "one pixel spacing differs": Fault(
        errors.GeometryError, "IM0004.dcm has another pixel spacing", only(4, tags(PixelSpacing=[6, 7]))
    ),
    "one slice turned": Fault(
        errors.GeometryError,
        "IM0004.dcm lies in another direction",
        only(4, tags(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])),
    ),
    "one slice smaller": Fault(errors.GeometryError, "IM0004.dcm has 24 x 10 pixels", only(4, _smaller)),
    "no rescale": Fault(errors.NotHUError, "no rescale", tags(RescaleSlope=None, RescaleIntercept=None)),
    "rescale to density": Fault(errors.NotHUError, "MGML", tags(RescaleType="MGML")),
    "signed read as unsigned": Fault(errors.NotHUError, "unsigned", _wrong_sign),
    "inverted": Fault(errors.NotHUError, "MONOCHROME1", tags(PhotometricInterpretation="MONOCHROME1")),
    "offset not subtracted": Fault(errors.NotHUError, "1024", tags(RescaleIntercept=0)),
    "colour": Fault(errors.NotVolumeError, "colour", tags(PhotometricInterpretation="RGB", SamplesPerPixel=3)),
    "short pixels": Fault(errors.TruncatedFileError, "IM0004.dcm holds 100 of 960", only(4, _short_pixels)),
    "no pixels": Fault(errors.TruncatedFileError, "IM0004.dcm ends before its pixels", only(4, tags(PixelData=None))),
    "MR": Fault(errors.NotCTError, "18 x MR", of_class(MRImageStorage, "MR")),
    "screenshots": Fault(errors.NotCTError, "18 x captures", of_class(SecondaryCaptureImageStorage, "CT")),
    "structures only": Fault(errors.NotCTError, "RTSTRUCT", of_class(RTStructureSetStorage, "RTSTRUCT")),
    "localizers only": Fault(errors.NotVolumeError, "localizers", tags(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    "enhanced without frames": Fault(
        errors.CorruptFileError, "1 frames and describes 0", of_class(EnhancedCTImageStorage, "CT")
    ),
    "several frames": Fault(errors.NotVolumeError, "multi-frame", tags(NumberOfFrames=18)),
    "two patients": Fault(errors.CorruptFileError, "2 patients", only(4, tags(PatientID="PLANTED-ID-8"))),
    "two studies": Fault(errors.CorruptFileError, "2 studies", only(4, tags(StudyInstanceUID="1.2.3"))),
    "one identity for all": Fault(errors.DuplicateSlicesError, "same SOP Instance UID", tags(SOPInstanceUID="1.2.3")),
    "all at one place": Fault(errors.NotVolumeError, "single slice", tags(ImagePositionPatient=[0, 0, 0])),
    "bits in odd places": Fault(errors.CorruptFileError, "layout", tags(HighBit=12)),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faulty_series_is_refused_by_name(case: str, tmp_path: Path) -> None:
    expected = FAULTS[case]
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=expected.fault, skip=expected.skip)
    with pytest.raises(expected.kind) as refused:
        read_volume(folder)
    text = str(refused.value)
    assert type(refused.value) is expected.kind
    assert text.startswith("case: ")
    assert expected.words in text
    assert refused.value.advice
    assert "PLANTED" not in text


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _truncate_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


DAMAGES: dict[str, tuple[Callable[[Path], object], type[errors.InputError]]] = {
    "cut in the pixels": (_truncate, errors.TruncatedFileError),
    "cut in the header": (_truncate_header, errors.InputError),
    "empty": (lambda path: path.write_bytes(b""), errors.TruncatedFileError),
    "other content": (lambda path: path.write_bytes(b"hello" * 400), errors.CorruptFileError),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_one_unreadable_slice_refuses_the_study(case: str, tmp_path: Path) -> None:
    damage, kind = DAMAGES[case]
    folder = write_dicom_series(tmp_path / "case", SMALL)
    damage(folder / "IM0017.dcm")
    with pytest.raises(kind, match=r"case: IM0017\.dcm"):
        read_volume(folder)
