"""DICOM folders as they should not be: refused by name, naming the file that is to blame."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medseg import errors
from medseg.imaging import Volume, read_volume
from tests.phantoms import edit_dicom, phantom_volume, write_dicom_series, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
OTHER = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS", seed=2)


def _set(**values: Any) -> Callable[[pydicom.Dataset, int], None]:
    """Every slice gets these values; None removes the attribute."""

    def fault(dataset: pydicom.Dataset, k: int) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return fault


def _only(at: int, fault: Callable[[pydicom.Dataset, int], Any]) -> Callable[[pydicom.Dataset, int], Any]:
    return lambda dataset, k: fault(dataset, k) if k == at else None


def _shifted_in_depth(dataset: pydicom.Dataset, k: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z + (7.5 * (k - 8) if k > 8 else 0)]


def _jitter(dataset: pydicom.Dataset, k: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z + 1.0 * (k == 9)]


def _tilt(dataset: pydicom.Dataset, k: int) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, f"{np.cos(np.pi / 12):.9f}", f"{np.sin(np.pi / 12):.9f}"]


def _named(fault: Callable[[pydicom.Dataset, int], Any], tilt: float) -> Callable[[pydicom.Dataset, int], Any]:
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


def _class(uid: str, modality: str) -> Callable[[pydicom.Dataset, int], None]:
    def fault(dataset: pydicom.Dataset, k: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
        dataset.Modality = modality

    return fault


def _wrong_sign(dataset: pydicom.Dataset, k: int) -> None:
    dataset.PixelRepresentation, dataset.RescaleIntercept = 0, 0
    dataset.PixelData = SMALL.hu[:, :, k].T.astype("<i2").tobytes()


@dataclass(frozen=True)
class Fault:
    kind: type[errors.InputError]
    words: str
    fault: Callable[[pydicom.Dataset, int], Any] | None = None
    skip: tuple[int, ...] = ()


FAULTS: dict[str, Fault] = {
    "a slice missing": Fault(errors.MissingSlicesError, "1 slice(s) are missing after slice 9 of 17", skip=(9,)),
    "three slices missing": Fault(errors.MissingSlicesError, "3 slice(s) are missing", skip=(9, 10, 14)),
    "only one slice": Fault(errors.NotVolumeError, "single slice", skip=tuple(range(1, 18))),
    "wider from the middle on": Fault(errors.GeometryError, "one even spacing", _shifted_in_depth),
    "one slice off": Fault(errors.GeometryError, "one even spacing", _jitter),
    "tilt that the header contradicts": Fault(errors.GantryTiltError, "their header names 3", _named(_tilt, 3)),
    "sheared by 60 degrees": Fault(errors.GantryTiltError, "60.0 degrees", _steep),
    "sheared along both axes": Fault(errors.GantryTiltError, "not along one axis", _askew),
    "no position": Fault(errors.GeometryError, "ImagePositionPatient", _set(ImagePositionPatient=None)),
    "no position in one": Fault(
        errors.GeometryError, "IM0004.dcm has no place", _only(4, _set(ImagePositionPatient=None))
    ),
    "no orientation": Fault(errors.GeometryError, "ImageOrientationPatient", _set(ImageOrientationPatient=None)),
    "axes not at right angles": Fault(
        errors.GeometryError, "right-angled", _set(ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0])
    ),
    "no pixel spacing": Fault(errors.GeometryError, "PixelSpacing", _set(PixelSpacing=None)),
    "pixel spacing 0": Fault(errors.GeometryError, "pixel spacing", _set(PixelSpacing=[0, 0])),
    "one pixel spacing differs": Fault(
        errors.GeometryError, "IM0004.dcm has another pixel spacing", _only(4, _set(PixelSpacing=[6, 7]))
    ),
    "one slice turned": Fault(
        errors.GeometryError,
        "IM0004.dcm lies in another direction",
        _only(4, _set(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])),
    ),
    "one slice smaller": Fault(errors.GeometryError, "IM0004.dcm has 24 x 10 pixels", _only(4, _smaller)),
    "no rescale": Fault(errors.NotHUError, "no rescale", _set(RescaleSlope=None, RescaleIntercept=None)),
    "rescale to density": Fault(errors.NotHUError, "MGML", _set(RescaleType="MGML")),
    "signed read as unsigned": Fault(errors.NotHUError, "unsigned", _wrong_sign),
    "inverted": Fault(errors.NotHUError, "MONOCHROME1", _set(PhotometricInterpretation="MONOCHROME1")),
    "offset not subtracted": Fault(errors.NotHUError, "1024", _set(RescaleIntercept=0)),
    "colour": Fault(errors.NotVolumeError, "colour", _set(PhotometricInterpretation="RGB", SamplesPerPixel=3)),
    "short pixels": Fault(errors.TruncatedFileError, "IM0004.dcm holds 100 of 960", _only(4, _short_pixels)),
    "no pixels": Fault(errors.TruncatedFileError, "IM0004.dcm ends before its pixels", _only(4, _set(PixelData=None))),
    "MR": Fault(errors.NotCTError, "18 x MR", _class(MRImageStorage, "MR")),
    "screenshots": Fault(errors.NotCTError, "18 x captures", _class(SecondaryCaptureImageStorage, "CT")),
    "structures only": Fault(errors.NotCTError, "RTSTRUCT", _class(RTStructureSetStorage, "RTSTRUCT")),
    "localizers only": Fault(errors.NotVolumeError, "localizers", _set(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    "enhanced without frames": Fault(
        errors.CorruptFileError, "1 frames and describes 0", _class(EnhancedCTImageStorage, "CT")
    ),
    "several frames": Fault(errors.NotVolumeError, "multi-frame", _set(NumberOfFrames=18)),
    "two patients": Fault(errors.CorruptFileError, "2 patients", _only(4, _set(PatientID="PLANTED-ID-8"))),
    "two studies": Fault(errors.CorruptFileError, "2 studies", _only(4, _set(StudyInstanceUID="1.2.3"))),
    "one identity for all": Fault(errors.DuplicateSlicesError, "same SOP Instance UID", _set(SOPInstanceUID="1.2.3")),
    "all at one place": Fault(errors.NotVolumeError, "single slice", _set(ImagePositionPatient=[0, 0, 0])),
    "bits in odd places": Fault(errors.CorruptFileError, "layout", _set(HighBit=12)),
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


def test_identical_copies_are_dropped_with_a_finding(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    clean = read_volume(folder)
    copy = pydicom.dcmread(folder / "IM0005.dcm")
    copy.SOPInstanceUID = generate_uid()
    copy.save_as(folder / "copy.dcm")
    shutil.copy(folder / "IM0007.dcm", folder / "again.dcm")
    volume = read_volume(folder)
    assert [f.code for f in volume.findings] == ["duplicate_slices"]
    assert "2 slice(s)" in str(volume.findings[0])
    assert np.array_equal(volume.hu, clean.hu)


def test_different_slices_at_one_place_are_refused(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    copy = pydicom.dcmread(folder / "IM0005.dcm")
    copy.SOPInstanceUID, copy.PixelData = generate_uid(), OTHER.hu[:, :, 5].T.astype("<i2").tobytes()
    copy.save_as(folder / "copy.dcm")
    with pytest.raises(errors.DuplicateSlicesError, match=r"IM0005\.dcm and copy\.dcm"):
        read_volume(folder)


def test_two_series_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    first, second = "1.2.826.0.1.11111", "1.2.826.0.1.22222"
    write_dicom_series(tmp_path / "case" / "a", SMALL, series_uid=first)
    write_dicom_series(tmp_path / "case" / "b", OTHER, series_uid=second, skip=(16, 17))
    with pytest.raises(errors.SeriesChoiceError) as refused:
        read_volume(tmp_path / "case")
    assert len(refused.value.series) == 2
    assert refused.value.series[0].startswith("1: 18 slices of 24 x 20, pixels 7.00 x 7.00 mm, every 7.50 mm")
    assert "22222" in refused.value.series[1]
    assert "PLANTED" not in str(refused.value)
    for choice in ("2", 2, second, "22222"):
        chosen = read_volume(tmp_path / "case", series=choice)
        assert chosen.series == second
        assert np.array_equal(chosen.hu, OTHER.hu[:, :, :16])
    with pytest.raises(errors.SeriesChoiceError, match="no series '9'"):
        read_volume(tmp_path / "case", series=9)


def test_two_patients_are_named_as_such(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "case", SMALL)
    write_dicom_series(tmp_path / "case", OTHER, patient_id="PLANTED-ID-8", names=lambda k: f"B{k}")
    with pytest.raises(errors.SeriesChoiceError, match="2 different patients"):
        read_volume(tmp_path / "case")


def test_phases_within_one_series_are_listed(tmp_path: Path) -> None:
    uid = generate_uid()
    write_dicom_series(tmp_path / "case", SMALL, series_uid=uid, study_uid="1.2.3")
    write_dicom_series(
        tmp_path / "case", OTHER, series_uid=uid, study_uid="1.2.3", names=lambda k: f"B{k}", AcquisitionNumber=2
    )
    with pytest.raises(errors.SeriesChoiceError) as refused:
        read_volume(tmp_path / "case")
    assert len(refused.value.series) == 2
    assert np.array_equal(read_volume(tmp_path / "case", series="2").hu, OTHER.hu)
    with pytest.raises(errors.SeriesChoiceError):
        read_volume(tmp_path / "case", series=uid)


def test_what_lies_beside_a_ct_in_an_archive_is_no_finding(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case" / "ct", SMALL, names=lambda k: f"{k:08d}")
    extra = tmp_path / "case" / "extra"
    write_dicom_series(extra, SMALL, skip=range(1, 18), fault=_class(RTStructureSetStorage, "RTSTRUCT"))
    write_dicom_series(extra / "pt", SMALL, fault=_class("1.2.840.10008.5.1.4.1.1.128", "PT"))
    write_dicom_series(extra / "scout", SMALL, skip=range(1, 18), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for junk in ("DICOMDIR", ".DS_Store", "Thumbs.db", "readme.txt", "._00000001", "empty"):
        (folder / junk).write_bytes(b"" if junk == "empty" else b"DICM junk" * 40)
    volume = read_volume(tmp_path / "case")
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.findings == ()
    assert volume.name == "case"


def test_localizer_under_the_same_uid_is_set_aside(tmp_path: Path) -> None:
    uid = generate_uid()
    folder = write_dicom_series(tmp_path / "case", SMALL, series_uid=uid, study_uid="1.2.3")
    scout = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LIP")
    scouts = {"skip": range(2, 20), "series_uid": uid, "study_uid": "1.2.3", "names": lambda k: f"scout{k}"}
    write_dicom_series(folder, scout, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **scouts)
    volume = read_volume(folder)
    assert [f.code for f in volume.findings] == ["localizer"]
    assert np.array_equal(volume.hu, SMALL.hu)


def test_order_comes_from_places_alone(tmp_path: Path) -> None:
    def shuffle(dataset: pydicom.Dataset, k: int) -> None:
        dataset.InstanceNumber = (k * 7) % 18

    folder = write_dicom_series(tmp_path / "case", SMALL, fault=shuffle, names=lambda k: f"{(k * 5) % 18:03d}")
    volume = read_volume(folder)
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.geometry.matches(SMALL.geometry)


def test_digest_does_not_depend_on_file_names(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "one", SMALL)
    (tmp_path / "two" / "deep").mkdir(parents=True)
    for k, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, tmp_path / "two" / "deep" / f"x{99 - k}")
    one, two = read_volume(tmp_path / "one"), read_volume(tmp_path / "two")
    assert one.sha256 == two.sha256
    assert len(one.sha256) == 64


def test_rescale_of_every_slice_is_its_own(tmp_path: Path) -> None:
    def own(dataset: pydicom.Dataset, k: int) -> None:
        slope = 1 + 0.05 * k
        stored = np.round((SMALL.hu[:, :, k].T + 1024) / slope).astype("<i2")
        dataset.RescaleSlope, dataset.PixelData = f"{slope:.4f}", stored.tobytes()

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=own))
    assert np.abs(volume.hu - SMALL.hu).max() <= 0.5 * (1 + 0.05 * 17)
    assert volume.hu.dtype == np.float32


@pytest.mark.parametrize(("padding", "inter"), [(-2000, -1024), (63536, -1024), (-3024, 0), (3000, -1024)])
def test_padding_becomes_air_without_a_word(padding: int, inter: int, tmp_path: Path) -> None:
    stored_padding = padding - 65536 if padding > 32767 else padding

    def pad(dataset: pydicom.Dataset, k: int) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(20, 24).copy()
        stored[:3], stored[-3:] = stored_padding, stored_padding
        dataset.PixelData = stored.tobytes()
        dataset.add_new(0x00280120, "US" if padding > 32767 else "SS", padding)

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=pad, inter=inter))
    assert (volume.hu[:, :3] == -1024).all()
    assert np.array_equal(volume.hu[:, 3:-3], SMALL.hu[:, 3:-3])
    assert volume.findings == ()


def test_wrong_padding_value_does_not_erase_tissue(tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, PixelPaddingValue=1064))
    assert np.array_equal(volume.hu, SMALL.hu)


def test_twelve_bits_signed_with_rubbish_above(tmp_path: Path) -> None:
    def twelve(dataset: pydicom.Dataset, k: int) -> None:
        stored = np.clip(SMALL.hu[:, :, k].T, -1024, 2047).astype("<i2")
        dataset.BitsStored, dataset.HighBit, dataset.RescaleIntercept = 12, 11, 0
        dataset.PixelData = ((stored & 0x0FFF) | 0x5000).astype("<i2").tobytes()

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=twelve))
    assert np.array_equal(volume.hu, SMALL.hu)


# JPEG 2000 needs at least 32 pixels a side.
LARGER = phantom_volume((40, 36, 12), (4.5, 4.5, 7.0), orientation="LPS")
COMPRESSED = {"JPEG 2000": JPEG2000Lossless, "JPEG-LS": JPEGLSLossless, "RLE": RLELossless}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_slices_are_exact(name: str, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", LARGER, fault=lambda dataset, k: dataset.compress(COMPRESSED[name]))
    volume = read_volume(folder)
    assert np.array_equal(volume.hu, LARGER.hu)
    assert volume.findings == ()


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_slice_cut_off_is_refused(name: str, tmp_path: Path) -> None:
    def cut(dataset: pydicom.Dataset, k: int) -> None:
        dataset.compress(COMPRESSED[name])
        if k == 4:
            frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
            dataset.PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 2 // 2 * 2]])

    with pytest.raises(errors.InputError, match=r"case: IM0004\.dcm"):
        read_volume(write_dicom_series(tmp_path / "case", LARGER, fault=cut))


def test_compressed_file_cut_off_is_refused(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", LARGER, fault=lambda d, k: d.compress(JPEG2000Lossless))
    _truncate(folder / "IM0003.dcm")
    with pytest.raises(errors.InputError, match=r"case: IM0003\.dcm"):
        read_volume(folder)


def test_lossy_compression_is_a_finding(tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, LossyImageCompression="01"))
    assert [f.code for f in volume.findings] == ["lossy"]


def test_unknown_compression_is_named(tmp_path: Path) -> None:
    def video(dataset: pydicom.Dataset, k: int) -> None:
        dataset.compress(RLELossless)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"

    with pytest.raises(errors.UnknownFormatError, match="MPEG-4"):
        read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=video))


def test_deflated_and_big_endian(tmp_path: Path) -> None:
    def deflate(dataset: pydicom.Dataset, k: int) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    assert np.array_equal(read_volume(write_dicom_series(tmp_path / "deflated", SMALL, fault=deflate)).hu, SMALL.hu)
    folder = write_dicom_series(tmp_path / "big", SMALL)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        swapped = pydicom.Dataset(dataset)
        swapped.file_meta = dataset.file_meta
        swapped.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        swapped.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(path, swapped, implicit_vr=False, little_endian=False, enforce_file_format=True)
    assert np.array_equal(read_volume(folder).hu, SMALL.hu)


def test_deflated_bomb_is_refused(tmp_path: Path) -> None:
    def bomb(dataset: pydicom.Dataset, k: int) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.add_new(0x00091001, "OB", bytes(65 << 20) if k == 0 else b"")

    folder = write_dicom_series(tmp_path / "case", SMALL, fault=bomb, skip=range(1, 18))
    with pytest.raises(errors.TooLargeError, match="inflates"):
        read_volume(folder)


def test_data_set_without_preamble(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, names=lambda k: f"{k}")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        plain = pydicom.Dataset(dataset)
        pydicom.dcmwrite(path, plain, implicit_vr=True, little_endian=True, enforce_file_format=False)
    volume = read_volume(folder)
    assert np.array_equal(volume.hu, SMALL.hu)


def test_one_file_stands_for_its_series(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "case", SMALL)
    write_dicom_series(tmp_path / "case", OTHER, names=lambda k: f"B{k}.dcm")
    volume = read_volume(tmp_path / "case" / "B3.dcm")
    assert np.array_equal(volume.hu, OTHER.hu)
    assert volume.name == "B3"


def test_lonely_slice_whatever_its_name(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, skip=range(1, 18), names=lambda k: "x.nii.gz")
    with pytest.raises(errors.NotVolumeError, match=r"x\.nii\.gz: is a single slice"):
        read_volume(folder / "x.nii.gz")


def test_file_that_is_no_ct(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=_class(MRImageStorage, "MR"))
    with pytest.raises(errors.NotCTError, match=r"IM0000\.dcm: is no CT image \(modality MR\)"):
        read_volume(folder / "IM0000.dcm")


def test_folder_without_dicom(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", SMALL)
    with pytest.raises(errors.NoScanError):
        read_volume(tmp_path)


def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    import os

    folder = write_dicom_series(tmp_path / "case", SMALL)
    outside = write_dicom_series(tmp_path / "outside", OTHER)
    (folder / "link.dcm").symlink_to(outside / "IM0001.dcm")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.dcm").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.dcm")
    assert np.array_equal(read_volume(folder).hu, SMALL.hu)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned_in"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "derived"),
        ({"GantryDetectorTilt": 12}, "gantry_tilt"),
    ],
)
def test_what_a_reader_must_know(tags: dict[str, Any], code: str, tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, **tags))
    assert [f.code for f in volume.findings] == [code]


def test_pixels_with_a_tail_are_a_finding(tmp_path: Path) -> None:
    def longer(dataset: pydicom.Dataset, k: int) -> None:
        dataset.PixelData += bytes(64)

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=longer))
    assert [f.code for f in volume.findings] == ["trailing_bytes"]
    assert np.array_equal(volume.hu, SMALL.hu)


def test_edited_series_keeps_its_class(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    edit_dicom(folder / "IM0000.dcm", lambda dataset: setattr(dataset, "SOPClassUID", CTImageStorage))
    assert isinstance(read_volume(folder), Volume)


@pytest.mark.parametrize(("step", "said"), [(7.5, 0), (-7.5, 0), (7.95, 0), (6.95, 1), (8.05, 1), (0.0, 1)])
def test_slice_locations_beside_the_places(step: float, said: int, tmp_path: Path) -> None:
    def located(dataset: pydicom.Dataset, k: int) -> None:
        dataset.SliceLocation = f"{step * k:.4f}"

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=located))
    assert [f.code for f in volume.findings] == ["contradicting_header"] * said


@pytest.mark.parametrize(("named", "said"), [(18, 0), (17, 0), (36, 0), (54, 0), (19, 1), (35, 1)])
def test_images_that_the_header_counts(named: int, said: int, tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, ImagesInAcquisition=named))
    assert [f.code for f in volume.findings] == ["slices_missing_at_end"] * said
