"""D: DICOM series whose slices are missing, doubled, mixed, tilted or in another order."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    generate_uid,
)

from tests.dicom_edits import lean, only, tags
from tests.phantoms import ORIENTATIONS, orient, write_dicom_series
from tests.poison.base import FINE, base, case, each, edit, refused, series, simple, slices, warned


def _lower(dataset: Dataset, mm: float) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, float(z) + mm]


case("D0", "clean series", FINE)(series)
case("D1", "middle slice missing", refused("MissingSlicesError"))(lambda folder: series(folder, skip=(9,)))
case("D1b", "three slices missing in a row", refused("MissingSlicesError"))(
    lambda folder: series(folder, skip=(9, 10, 11))
)
case("D1c", "every second slice missing in the lower half", refused("MissingSlicesError", "GeometryError"))(
    lambda folder: series(folder, skip=(1, 3, 5, 7, 9))
)
simple(
    "D2", "slices missing at the end, and the header counts them", warned("slices_missing_at_end", truth=False),
    tags(ImagesInAcquisition=22), skip=(20, 21),
)  # fmt: skip


@case("D3", "slice twice under another identity", warned("duplicate_slices"))
def _(folder: Path) -> Path:
    made = series(folder)
    dataset = pydicom.dcmread(slices(made)[5])
    dataset.SOPInstanceUID = generate_uid()
    dataset.save_as(made / "copy.dcm")
    return made


@case("D3b", "two different slices at one place", refused("DuplicateSlicesError", "SeriesChoiceError"))
def _(folder: Path) -> Path:
    made = series(folder)
    dataset = pydicom.dcmread(slices(made)[5])
    dataset.SOPInstanceUID = generate_uid()
    dataset.PixelData = pydicom.dcmread(slices(made)[12]).PixelData
    dataset.save_as(made / "copy.dcm")
    return made


def _two(folder: Path, **more: Any) -> Path:
    uid, study = generate_uid(), generate_uid()
    made = series(folder, series_uid=uid, study_uid=study)
    second = {"series_uid": uid, "study_uid": study, "names": lambda k: f"JM{k:04d}.dcm"} | more
    write_dicom_series(made, base(2), **second)
    return made


@case("D4", "two acquisitions in one series", refused("SeriesChoiceError"))
def _(folder: Path) -> Path:
    return _two(folder, AcquisitionNumber=2)


@case("D4b", "two acquisitions that nothing tells apart", refused("DuplicateSlicesError"))
def _(folder: Path) -> Path:
    return _two(folder)


@case("D5", "two series in one folder", refused("SeriesChoiceError"))
def _(folder: Path) -> Path:
    return _two(folder, series_uid=generate_uid())


@case("D5b", "two series, one chosen", FINE, series="1.2.3.4.5")
def _(folder: Path) -> Path:
    made = series(folder, series_uid="1.2.3.4.5")
    return write_dicom_series(made, base(2), names=lambda k: f"JM{k:04d}.dcm")


@case("D5c", "two patients", refused("SeriesChoiceError"))
def _(folder: Path) -> Path:
    return _two(folder, series_uid=generate_uid(), patient_id="PLANTED-ID-8")


@case("D5d", "a slice of another patient", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    made = series(folder)
    edit(slices(made)[7], lambda dataset: setattr(dataset, "PatientID", "PLANTED-ID-8"))
    return made


def _scout(folder: Path, kind: list[str]) -> Path:
    uid, study = generate_uid(), generate_uid()
    made = series(folder, series_uid=uid, study_uid=study)
    scout = {"skip": range(2, 40), "series_uid": uid, "study_uid": study, "names": lambda k: f"scout{k}"}
    return write_dicom_series(made, orient(base(), "LIP"), ImageType=kind, **scout)


@case("D6", "localizer under the same series", warned("localizer"))
def _(folder: Path) -> Path:
    return _scout(folder, ["ORIGINAL", "PRIMARY", "LOCALIZER"])


@case("D6b", "localizer that does not say so", refused("GeometryError"))
def _(folder: Path) -> Path:
    return _scout(folder, ["ORIGINAL", "PRIMARY", "AXIAL"])


simple("D7", "tilted gantry", warned("straightened", truth=False), lean)
simple("D7b", "tilt that the header denies", refused("GantryTiltError"),
        lambda d, k: (lean(d, k), setattr(d, "GantryDetectorTilt", 4)))  # fmt: skip
simple("D7c", "tilt named, slices straight", warned("gantry_tilt"), tags(GantryDetectorTilt=12))
simple("D8", "6 mm, then 9 mm apart", warned("uneven_spacing", truth=False),
        lambda d, k: _lower(d, 3.0 * max(0, k - 12)))  # fmt: skip
simple("D8b", "one slice 1 mm off", refused("GeometryError"), only(9, lambda d, k: _lower(d, 1.0)))
simple("D8c", "spacing that wavers", refused("GeometryError"), lambda d, k: _lower(d, 0.9 * (k % 2)))


@case("D9", "instance numbers shuffled", FINE)
def _(folder: Path) -> Path:
    return series(
        folder, fault=lambda d, k: setattr(d, "InstanceNumber", (k * 7) % 22), names=lambda k: f"{k * 5 % 22:02d}"
    )


simple("D9b", "instance numbers all 1", FINE, tags(InstanceNumber=1))
simple("D10", "no positions", refused("GeometryError"), tags(ImagePositionPatient=None))
simple("D11", "one slice without position", refused("GeometryError"), only(4, tags(ImagePositionPatient=None)))
simple("D12", "no orientation", refused("GeometryError"), tags(ImageOrientationPatient=None))
simple(
    "D12b", "axes not at right angles", refused("GeometryError"), tags(ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0])
)
simple("D12c", "axes of length 2", refused("GeometryError"), tags(ImageOrientationPatient=[2, 0, 0, 0, 2, 0]))
simple("D13", "pixel spacing 0", refused("GeometryError"), tags(PixelSpacing=[0, 0]))
simple("D13b", "no pixel spacing, only that of the detector", refused("GeometryError"),
        lambda d, k: (delattr(d, "PixelSpacing"), setattr(d, "ImagerPixelSpacing", [5.2, 5.0])))  # fmt: skip
simple("D13c", "one slice with another pixel spacing", refused("GeometryError"), only(4, tags(PixelSpacing=[5.0, 5.0])))


def _smaller(dataset: Dataset, k: int) -> None:
    dataset.Rows, dataset.PixelData = 14, dataset.PixelData[: 14 * 32 * 2]


simple("D14", "one slice smaller", refused("GeometryError"), only(4, _smaller))

for _code in ("LPI", "RAS", "RPI", "LIP", "LSA", "PIR", "ASL", "SPL"):
    assert _code in ORIENTATIONS
    case("D30", f"slices stored as {_code}", FINE)(lambda folder, code=_code: series(folder, orient(base(), code)))


@case("D40", "two phases", refused("SeriesChoiceError"))
def _(folder: Path) -> Path:
    return _two(folder, TemporalPositionIdentifier=2, NominalPercentageOfCardiacPhase=40)


@case("D41", "one identity for two slices", refused("DuplicateSlicesError"))
def _(folder: Path) -> Path:
    made = series(folder)
    uid = pydicom.dcmread(slices(made)[5]).SOPInstanceUID
    edit(slices(made)[9], lambda d: setattr(d, "SOPInstanceUID", uid))
    return made


simple("D46", "slice location that contradicts the place", warned("contradicting_header"),
        lambda d, k: setattr(d, "SliceLocation", 3.0 * k))  # fmt: skip


@case("D47", "one bit of a position flipped", refused("GeometryError", "CorruptFileError"))
def _(folder: Path) -> Path:
    made = series(folder)
    content = bytearray(slices(made)[9].read_bytes())
    at = content.find(struct.pack("<HH", 0x20, 0x32)) + 8
    place = content.index(b"\\", content.index(b"\\", at) + 1) + 1
    content[place + 1] ^= 0x04
    slices(made)[9].write_bytes(content)
    return made


@case("D48", "decisive tag twice", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    made = series(folder)
    content = slices(made)[9].read_bytes()
    at = content.find(struct.pack("<HH", 0x28, 0x1052))
    double = struct.pack("<HH", 0x28, 0x1052) + b"DS\x04\x00-24 "
    slices(made)[9].write_bytes(content[:at] + double + content[at:])
    return made


@case("D49", "slices in folders of their own", FINE)
def _(folder: Path) -> Path:
    made = series(folder)
    for k, path in each(made):
        (made / f"{k % 3}").mkdir(exist_ok=True)
        path.rename(made / f"{k % 3}" / path.name)
    return made
