"""D: DICOM series."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medseg.imaging.volume import Volume
from tests.phantoms import ORIENTATIONS, orient, write_dicom_series, write_enhanced_ct
from tests.poison.base import FINE, FINE_OTHER, base, case, each, edit, refused, series, slices, warned


def _tags(**values: Any) -> Callable[[Dataset, int], None]:
    def fault(dataset: Dataset, k: int) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return fault


def _at(slice_number: int, fault: Callable[[Dataset, int], Any]) -> Callable[[Dataset, int], Any]:
    return lambda dataset, k: fault(dataset, k) if k == slice_number else None


def _simple(number: str, name: str, expect: Any, fault: Callable[[Dataset, int], Any], **more: Any) -> None:
    case(number, name, expect)(lambda folder: series(folder, fault=fault, **more))


def _lower(dataset: Dataset, mm: float) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, float(z) + mm]


def _class(uid: str, modality: str) -> Callable[[Dataset, int], None]:
    def fault(dataset: Dataset, k: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
        dataset.Modality = modality

    return fault


case("D0", "clean series", FINE)(series)
case("D1", "middle slice missing", refused("MissingSlicesError"))(lambda folder: series(folder, skip=(9,)))
case("D1b", "three slices missing in a row", refused("MissingSlicesError"))(
    lambda folder: series(folder, skip=(9, 10, 11))
)
case("D1c", "every second slice missing in the lower half", refused("MissingSlicesError", "GeometryError"))(
    lambda folder: series(folder, skip=(1, 3, 5, 7, 9))
)
_simple(
    "D2", "slices missing at the end, and the header counts them", warned("slices_missing_at_end", truth=False),
    _tags(ImagesInAcquisition=22), skip=(20, 21),
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


def _lean(dataset: Dataset, k: int) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, f"{np.cos(np.pi / 12):.9f}", f"{np.sin(np.pi / 12):.9f}"]


_simple("D7", "tilted gantry", warned("gantry_tilt", truth=False), _lean)
_simple("D7b", "tilt that the header denies", refused("GantryTiltError"),
        lambda d, k: (_lean(d, k), setattr(d, "GantryDetectorTilt", 4)))  # fmt: skip
_simple("D7c", "tilt named, slices straight", warned("gantry_tilt"), _tags(GantryDetectorTilt=12))
_simple("D8", "6 mm, then 9 mm apart", warned("uneven_spacing", truth=False),
        lambda d, k: _lower(d, 3.0 * max(0, k - 12)))  # fmt: skip
_simple("D8b", "one slice 1 mm off", refused("GeometryError"), _at(9, lambda d, k: _lower(d, 1.0)))
_simple("D8c", "spacing that wavers", refused("GeometryError"), lambda d, k: _lower(d, 0.9 * (k % 2)))


@case("D9", "instance numbers shuffled", FINE)
def _(folder: Path) -> Path:
    return series(
        folder, fault=lambda d, k: setattr(d, "InstanceNumber", (k * 7) % 22), names=lambda k: f"{k * 5 % 22:02d}"
    )


_simple("D9b", "instance numbers all 1", FINE, _tags(InstanceNumber=1))
_simple("D10", "no positions", refused("GeometryError"), _tags(ImagePositionPatient=None))
_simple("D11", "one slice without position", refused("GeometryError"), _at(4, _tags(ImagePositionPatient=None)))
_simple("D12", "no orientation", refused("GeometryError"), _tags(ImageOrientationPatient=None))
_simple(
    "D12b", "axes not at right angles", refused("GeometryError"), _tags(ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0])
)
_simple("D12c", "axes of length 2", refused("GeometryError"), _tags(ImageOrientationPatient=[2, 0, 0, 0, 2, 0]))
_simple("D13", "pixel spacing 0", refused("GeometryError"), _tags(PixelSpacing=[0, 0]))
_simple("D13b", "no pixel spacing, only that of the detector", refused("GeometryError"),
        lambda d, k: (delattr(d, "PixelSpacing"), setattr(d, "ImagerPixelSpacing", [5.2, 5.0])))  # fmt: skip
_simple(
    "D13c", "one slice with another pixel spacing", refused("GeometryError"), _at(4, _tags(PixelSpacing=[5.0, 5.0]))
)
_simple("D14", "one slice smaller", refused("GeometryError"),
        _at(4, lambda d, k: (setattr(d, "Rows", 14), setattr(d, "PixelData", d.PixelData[: 14 * 32 * 2]))))  # fmt: skip


def _own_rescale(dataset: Dataset, k: int) -> None:
    slope = 1 + k / 20
    hu = base().hu[:, :, k].T.astype(np.float64)
    dataset.RescaleSlope = slope
    dataset.PixelData = np.round((hu + 1024) / slope).astype("<i2").tobytes()


_simple("D15", "a rescale of its own for each slice", FINE_OTHER, _own_rescale)
_simple("D16", "no rescale", refused("NotHUError"), _tags(RescaleSlope=None, RescaleIntercept=None))
_simple("D16b", "rescale slope 0", refused("NotHUError"), _tags(RescaleSlope=0))
_simple("D16c", "rescale to density", refused("NotHUError"), _tags(RescaleType="MGML"))


@case("D17", "first slice all tissue", FINE_OTHER)
def _(folder: Path) -> Path:
    hu = base().hu.copy()
    hu[:, :, 0] = 50
    return series(folder, Volume(hu, base().geometry))


def _unsigned(dataset: Dataset, k: int) -> None:
    dataset.PixelRepresentation, dataset.RescaleIntercept = 0, 0
    dataset.PixelData = base().hu[:, :, k].T.astype("<i2").tobytes()


_simple("D18", "signed values marked unsigned", refused("NotHUError"), _unsigned)


def _twelve(dataset: Dataset, k: int) -> None:
    stored = np.clip(base().hu[:, :, k].T, -1024, 1023).astype(np.int16)
    dataset.BitsStored, dataset.HighBit, dataset.RescaleIntercept = 12, 11, 0
    dataset.PixelData = ((stored.astype(np.uint16) & 0x0FFF) | 0xA000).astype("<u2").tobytes()


_simple("D19", "12 bits of 16, other data above them", FINE, _twelve)


def _compress(uid: str) -> Callable[[Dataset, int], None]:
    # OpenJPEG makes no stream of pictures smaller than 32 pixels, so these are repeated to twice their size.
    def fault(dataset: Dataset, k: int) -> None:
        dataset.compress(uid)

    return fault


def _larger() -> Volume:
    hu = np.repeat(np.repeat(base().hu, 2, axis=0), 2, axis=1)
    affine = base().affine.copy()
    affine[:3, :2] /= 2
    from medseg.imaging.volume import Geometry

    return Volume(hu, Geometry(hu.shape, affine))


case("D24", "JPEG 2000 with loss", warned("lossy", truth=False))(
    lambda folder: series(folder, _larger(), fault=lambda d, k: d.compress(JPEG2000, j2k_cr=[4]))
)
for _name, _uid in (("JPEG 2000", JPEG2000Lossless), ("JPEG-LS", JPEGLSLossless), ("RLE", RLELossless)):
    case("D20" if _uid != RLELossless else "D21", f"{_name}, lossless", FINE_OTHER)(
        lambda folder, uid=_uid: series(folder, _larger(), fault=_compress(uid))
    )


def _dcmtk(folder: Path, *options: str) -> Path:
    made = series(folder)
    for path in slices(made):
        subprocess.run(["dcmcjpeg", *options, path, path], check=True, capture_output=True)
    return made


if shutil.which("dcmcjpeg"):
    case("D20b", "JPEG lossless SV1", FINE)(lambda folder: _dcmtk(folder, "+e1"))
    case("D20c", "JPEG lossless, process 14", FINE)(lambda folder: _dcmtk(folder, "+el"))
    case("D24c", "lossy JPEG of 12 bits", refused("UnknownFormatError"))(lambda folder: _lossy(folder))


def _lossy(folder: Path) -> Path:
    made = series(folder, fault=_unsigned_twelve)
    for path in slices(made):
        subprocess.run(["dcmcjpeg", "+ee", path, path], check=True, capture_output=True)
    return made


def _unsigned_twelve(dataset: Dataset, k: int) -> None:
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.PixelData = np.clip(base().hu[:, :, k].T + 1024, 0, 4095).astype("<u2").tobytes()


@case("D20d", "JPEG-LS stream cut off", refused("TruncatedFileError", "CorruptFileError"))
def _(folder: Path) -> Path:
    made = series(folder, _larger(), fault=_compress(JPEGLSLossless))
    frame = next(iter(pydicom.encaps.generate_frames(pydicom.dcmread(slices(made)[6]).PixelData, number_of_frames=1)))
    cut = frame[: len(frame) // 2]
    edit(slices(made)[6], lambda d: setattr(d, "PixelData", pydicom.encaps.encapsulate([cut + b"\0" * (len(cut) % 2)])))
    return made


@case("D20e", "syntax that is no picture's", refused("UnknownFormatError"))
def _(folder: Path) -> Path:
    def video(dataset: Dataset, k: int) -> None:
        dataset.compress(RLELossless)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"

    return series(folder, fault=video)


_simple("D22", "deflated", FINE,
        lambda d, k: setattr(d.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian))  # fmt: skip


def _rewrite(folder: Path, little: bool, implicit: bool) -> Path:
    made = series(folder)
    for path in slices(made):
        dataset = pydicom.dcmread(path)
        plain = Dataset(dataset)
        plain.file_meta = dataset.file_meta
        if not little:
            plain.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        plain.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRBigEndian
        pydicom.dcmwrite(path, plain, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return made


case("D23", "big endian", FINE)(lambda folder: _rewrite(folder, little=False, implicit=False))
case("D23b", "implicit VR", FINE)(lambda folder: _rewrite(folder, little=True, implicit=True))
_simple("D24b", "compressed with loss before", warned("lossy"), _tags(LossyImageCompression="01"))


@case("D25", "deflated bomb", refused("TooLargeError"))
def _(folder: Path) -> Path:
    def bomb(dataset: Dataset, k: int) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.add_new(0x00091001, "OB", bytes(70 << 20) if k == 3 else b"")

    return series(folder, fault=bomb)


@case("D26", "enhanced multi-frame, frames out of order", FINE)
def _(folder: Path) -> Path:
    return write_enhanced_ct(folder / "enhanced.dcm", base(), order=[(k * 7) % 22 for k in range(22)])


@case("D26b", "enhanced, a frame missing", refused("MissingSlicesError"))
def _(folder: Path) -> Path:
    return write_enhanced_ct(folder / "enhanced.dcm", base(), order=[k for k in range(22) if k != 9])


@case("D26c", "multi-frame without places", refused("NotVolumeError", "TruncatedFileError", "GeometryError"))
def _(folder: Path) -> Path:
    made = series(folder, skip=range(1, 22))
    edit(slices(made)[0], lambda d: (setattr(d, "NumberOfFrames", 22), setattr(d, "PixelData", d.PixelData * 22)))
    return made


_simple("D27", "one slice without pixels", refused("TruncatedFileError", "CorruptFileError"),
        _at(4, _tags(PixelData=None)))  # fmt: skip
_simple("D28", "one slice with short pixels", refused("TruncatedFileError"),
        _at(4, lambda d, k: setattr(d, "PixelData", d.PixelData[:1000])))  # fmt: skip


@case("D28b", "one slice cut in half", refused("TruncatedFileError"))
def _(folder: Path) -> Path:
    made = series(folder)
    slices(made)[4].write_bytes(slices(made)[4].read_bytes()[: slices(made)[4].stat().st_size // 2])
    return made


@case("D28c", "one slice empty", refused("TruncatedFileError"))
def _(folder: Path) -> Path:
    made = series(folder)
    slices(made)[4].write_bytes(b"")
    return made


@case("D28d", "one slice replaced by text", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    made = series(folder)
    slices(made)[4].write_bytes(b"404 not found " * 100)
    return made


@case("D28e", "last slice without extension damaged", refused("CorruptFileError", "TruncatedFileError"))
def _(folder: Path) -> Path:
    made = series(folder, names=lambda k: f"IM{k:04d}")
    (made / "IM0021").write_bytes((made / "IM0021").read_bytes()[:100])
    return made


_simple("D29", "pixels longer than the picture", warned("trailing_bytes"),
        lambda d, k: setattr(d, "PixelData", d.PixelData + bytes(64)))  # fmt: skip
for _code in ("LPI", "RAS", "RPI", "LIP", "LSA", "PIR", "ASL", "SPL"):
    assert _code in ORIENTATIONS
    case("D30", f"slices stored as {_code}", FINE)(lambda folder, code=_code: series(folder, orient(base(), code)))


@case("D31", "DICOMDIR, reports and system files beside the slices", FINE)
def _(folder: Path) -> Path:
    made = series(folder, names=lambda k: f"{k:08d}")
    for name in ("DICOMDIR", ".DS_Store", "Thumbs.db", "readme.txt", "._00000001"):
        (made / name).write_bytes(b"DICM junk" * 40)
    return made


@case("D33", "without preamble", FINE)
def _(folder: Path) -> Path:
    made = series(folder, names=lambda k: f"{k}")
    for path in made.iterdir():
        plain = Dataset(pydicom.dcmread(path))
        pydicom.dcmwrite(path, plain, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return made


@case("D34", "RTSTRUCT, PET and a screenshot in the folder", FINE)
def _(folder: Path) -> Path:
    made = series(folder)
    for number, (uid, modality) in enumerate(
        (
            (RTStructureSetStorage, "RTSTRUCT"),
            ("1.2.840.10008.5.1.4.1.1.128", "PT"),
            (SecondaryCaptureImageStorage, "OT"),
        )
    ):
        names = {"names": lambda k, n=number: f"extra{n}_{k}"}
        write_dicom_series(made, base(2), skip=range(2, 22), fault=_class(uid, modality), **names)
    return made


_simple("D35", "secondary captures called CT", refused("NotCTError"), _class(SecondaryCaptureImageStorage, "CT"))
_simple("D35b", "maximum intensity projection", warned("derived"), _tags(ImageType=["DERIVED", "SECONDARY", "MIP"]))
_simple("D36", "burned-in text", warned("burned_in"), _tags(BurnedInAnnotation="YES"))


def _nested(dataset: Dataset, k: int) -> None:
    inner = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.add_new(0x00091010, "SQ", [inner])
        inner = outer
    dataset.add_new(0x00091010, "SQ", [inner])
    dataset.add_new(0x00091011, "UT", "x" * 200_000)


_simple("D37", "private sequences 40 deep, a long text", FINE, _nested)
_simple("D38", "names in Japanese", FINE,
        _tags(SpecificCharacterSet="ISO_IR 192", PatientName="山田^太郎", PatientID="患者"))  # fmt: skip


@case("D38b", "character set that does not exist", FINE)
def _(folder: Path) -> Path:
    made = series(folder, SpecificCharacterSet="ISO_IR 100")
    for path in slices(made):
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"NO SUCH 10"))
    return made


@case("D40", "two phases", refused("SeriesChoiceError"))
def _(folder: Path) -> Path:
    return _two(folder, TemporalPositionIdentifier=2, NominalPercentageOfCardiacPhase=40)


@case("D41", "one identity for two slices", refused("DuplicateSlicesError"))
def _(folder: Path) -> Path:
    made = series(folder)
    uid = pydicom.dcmread(slices(made)[5]).SOPInstanceUID
    edit(slices(made)[9], lambda d: setattr(d, "SOPInstanceUID", uid))
    return made


_simple("D42", "date in the future, no patient", FINE, _tags(StudyDate="29990101", PatientID=""))
_simple("D43", "MR", refused("NotCTError"), _class(MRImageStorage, "MR"))
_simple("D43b", "MR modality in CT objects", refused("NotCTError"), _tags(Modality="MR"))
_simple("D44", "inverted (MONOCHROME1)", refused("NotHUError"), _tags(PhotometricInterpretation="MONOCHROME1"))
_simple("D45", "colour", refused("NotVolumeError"), _tags(PhotometricInterpretation="RGB", SamplesPerPixel=3))
_simple("D46", "slice location that contradicts the place", warned("contradicting_header"),
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


@case("D50", "zeros behind the data set", warned("trailing_bytes"))
def _(folder: Path) -> Path:
    made = series(folder)
    for path in slices(made):
        path.write_bytes(path.read_bytes() + bytes(400))
    return made
