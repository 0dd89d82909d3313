"""The values of DICOM slices: rescale, padding, bits, compression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medseg import errors
from medseg.imaging import read_volume
from tests.dicom_edits import tags
from tests.phantoms import phantom_volume, write_dicom_series

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")


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
    path = folder / "IM0003.dcm"
    path.write_bytes(path.read_bytes()[:-200])
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


def test_pixels_with_a_tail_are_a_finding(tmp_path: Path) -> None:
    def longer(dataset: pydicom.Dataset, k: int) -> None:
        dataset.PixelData += bytes(64)

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=longer))
    assert [f.code for f in volume.findings] == ["trailing_bytes"]
    assert np.array_equal(volume.hu, SMALL.hu)


@pytest.mark.parametrize(("stored", "high"), [(0, -1), (17, 16), (12, 12), (16, 14)])
def test_layouts_that_ct_does_not_use(stored: int, high: int, tmp_path: Path) -> None:
    def laid_out(dataset: pydicom.Dataset, k: int) -> None:
        dataset.BitsStored = stored
        if high >= 0:
            dataset.HighBit = high

    with pytest.raises(errors.CorruptFileError, match="layout that CT does not use"):
        read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=laid_out))


@pytest.mark.parametrize("tag", ["HighBit", "InstanceNumber", "SliceThickness", "PatientID"])
def test_tags_that_nothing_depends_on_may_be_missing(tag: str, tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=tags(**{tag: None})))
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.findings == ()


@pytest.mark.parametrize("name", [b"OM", b"ZZ"])
def test_pixels_of_an_unknown_kind_are_refused_by_name(tmp_path: Path, name: bytes) -> None:
    folder = write_dicom_series(tmp_path / "study", SMALL)
    path = sorted(folder.iterdir())[3]
    content = path.read_bytes()
    at = content.rfind(b"\xe0\x7f\x10\x00") + 4
    path.write_bytes(content[:at] + name + content[at + 2 :])
    with pytest.raises(errors.CorruptFileError, match=f"{path.name}.* cannot be parsed as DICOM"):
        read_volume(folder)
