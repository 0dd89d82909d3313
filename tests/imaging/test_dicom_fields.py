"""Attributes of DICOM slices that decide: how they are read, what may be missing, what is said of the volume."""

from __future__ import annotations

import struct
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medseg import errors
from medseg.imaging import read_volume
from medseg.imaging.dicom_elements import read_elements
from medseg.imaging.sniff import sniff_bytes
from tests.dicom_edits import both, of_class, only, shifted, tags
from tests.phantoms import edit_dicom, phantom_volume, write_dicom_series

SMALL = phantom_volume((24, 20, 18), (7.0, 6.5, 7.0), orientation="LPS")
OTHER = phantom_volume((24, 20, 18), (7.0, 6.5, 7.0), orientation="LPS", seed=2)


def test_what_stands_behind_a_volume_is_told(tmp_path: Path) -> None:
    uid, study = "1.2.826.0.1.5", "1.2.826.0.1.6"
    folder = write_dicom_series(tmp_path / "case", SMALL, series_uid=uid, study_uid=study)
    scout = {"series_uid": uid, "study_uid": study, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_dicom_series(folder / "scout", SMALL, skip=range(1, 18), **scout)
    write_dicom_series(folder / "pt", SMALL, skip=range(3, 18), fault=of_class("1.2.840.10008.5.1.4.1.1.128", "PT"))
    evidence = read_volume(folder).evidence
    assert evidence["readers"] == ["pydicom", "medseg"]
    assert (evidence["slices"], evidence["files"], evidence["step_mm"]) == (18, 18, 7.0)
    assert list(evidence["instance_numbers"]) == [1, 18]
    assert evidence["set_aside"] == {"PT": 3, "localizers": 1}
    assert evidence["transfer_syntax"] == ["explicit little endian"]
    assert evidence["agreement"].endswith("every stored number")
    assert evidence["largest_corner_error_mm"] < 1e-5


def test_compressed_pixels_have_one_reader(tmp_path: Path) -> None:
    folder = write_dicom_series(
        tmp_path / "case", SMALL, fault=lambda dataset, k: dataset.compress(pydicom.uid.RLELossless)
    )
    edit_dicom(folder / "IM0004.dcm", lambda dataset: dataset.decompress())
    evidence = read_volume(folder).evidence
    assert evidence["transfer_syntax"] == ["RLE", "explicit little endian"]
    assert "every stored number" not in evidence["agreement"]
    assert evidence["set_aside"] == {}


@pytest.mark.parametrize("tag", ["RescaleType", "ImageType", "StudyInstanceUID"])
def test_tags_that_may_be_missing(tag: str, tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=tags(**{tag: None})))
    assert np.array_equal(volume.hu, SMALL.hu)


@pytest.mark.parametrize("stored", [12, 14, 16])
def test_unsigned_numbers_with_rubbish_in_the_bits_above(stored: int, tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        numbers = np.clip(SMALL.hu[:, :, k].T + 1024, 0, 4095).astype("<u2")
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, stored, stored - 1
        rubbish = 0xFFFF & ~((1 << stored) - 1)
        dataset.PixelData = (numbers | rubbish).astype("<u2").tobytes()

    assert np.array_equal(read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=edit)).hu, SMALL.hu)


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (32, "<i4")])
def test_numbers_of_other_widths(bits: int, dtype: str, tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        stored = np.round((SMALL.hu[:, :, k].T + 1024) / 16).astype(dtype)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
        dataset.PixelRepresentation, dataset.RescaleSlope = int(bits == 32), 16
        dataset.PixelData = stored.tobytes()

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=edit))
    assert np.array_equal(volume.hu, np.round((SMALL.hu + 1024) / 16) * 16 - 1024)


@pytest.mark.parametrize(("low", "high", "padded"), [(2990, 3010, True), (3010, 2990, True), (2990, None, False)])
def test_a_range_of_padding(low: int, high: int | None, padded: bool, tmp_path: Path) -> None:
    """Corners of the picture between the two values, whichever is written first."""

    def edit(dataset: Dataset, k: int) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(20, 24).copy()
        stored[:3], stored[-3:] = 3000, 3000
        dataset.PixelData = stored.tobytes()
        dataset.add_new(0x00280120, "SS", low)
        if high is not None:
            dataset.add_new(0x00280121, "SS", high)

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=edit))
    assert (volume.hu[:, :3] == (-1024 if padded else 1976)).all()
    assert np.array_equal(volume.hu[:, 3:-3], SMALL.hu[:, 3:-3])


CORNERS = [(0, 0), (0, -1), (-1, 0), (-1, -1)]


@pytest.mark.parametrize("corners", [CORNERS[:1], *combinations(CORNERS, 2)])
def test_padding_frames_a_picture_at_any_two_corners(corners: list[tuple[int, int]], tmp_path: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(20, 24).copy()
        for corner in corners:
            stored[corner] = 3000
        dataset.PixelData = stored.tobytes()
        dataset.add_new(0x00280120, "SS", 3000)

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=edit))
    row, column = corners[0]
    assert (volume.hu[column, row] == (3000 - 1024 if len(corners) == 1 else -1024)).all()


@pytest.mark.parametrize("change", [{"RescaleSlope": 0}, {"RescaleIntercept": None}])
def test_values_without_a_scale_are_taken_as_they_are_when_accepted(change: dict[str, Any], tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=tags(**change), inter=0.0)
    with pytest.raises(errors.NotHUError, match="no rescale"):
        read_volume(folder)
    assert np.array_equal(read_volume(folder, accept="a test").hu, SMALL.hu)


def test_noise_that_begins_as_dicom_does_is_damage(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, names=lambda k: f"{k:03d}.ima")
    (folder / "damaged").write_bytes(bytes(128) + b"DICM" + bytes(range(1, 256)) * 8)
    with pytest.raises(errors.InputError, match="damaged"):
        read_volume(folder)


def test_noise_that_only_resembles_a_data_set_is_left_aside(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, names=lambda k: f"{k:03d}.ima")
    (folder / "junk").write_bytes(b"\x08\0\x05\0" + bytes(range(1, 256)) * 8)
    for path in (folder, folder / "003.ima"):
        volume = read_volume(path)
        assert np.array_equal(volume.hu, SMALL.hu)
        assert [str(f) for f in volume.findings] == ["junk begins like DICOM and cannot be parsed: it was left out."]
    (folder / "junk").rename(folder / "018.ima")  # a name as of a slice
    for path in (folder, folder / "003.ima"):
        with pytest.raises(errors.CorruptFileError, match=r"018\.ima cannot be parsed as DICOM"):
            read_volume(path)


@pytest.mark.parametrize("group", [b"\x02\0", b"\x08\0"])
@pytest.mark.parametrize("number", range(0x20))
def test_data_sets_without_a_preamble_begin_with_a_small_number(number: int, group: bytes) -> None:
    known = number in (0x00, 0x01, 0x02, 0x05, 0x08, 0x12, 0x16, 0x18)
    assert (sniff_bytes(group + bytes((number, 0)) + b"CS\x02\0CT" + b"a" * 200) == "dicom") is known
    assert sniff_bytes(b"\x10\0" + bytes((number, 0)) + b"a" * 200) == ""


def test_the_shortest_head_of_a_data_set() -> None:
    assert sniff_bytes(b"\x08\0\x05\0" + b"a" * 129) == "dicom"
    assert sniff_bytes(b"\x08\0\x05\0" + b"a" * 128) == ""


def test_phases_whose_places_differ_by_less_than_they_are_told(tmp_path: Path) -> None:
    """Places in hundredths of a millimetre: two phases a thousandth apart lie at the same places."""
    uid = {"series_uid": generate_uid(), "study_uid": "1.2.3"}
    folder = write_dicom_series(tmp_path / "case", SMALL, **uid)
    aside = both(shifted(lambda k: (0, 0, 0.002)), tags(AcquisitionNumber=2))
    write_dicom_series(folder, OTHER, fault=aside, names=lambda k: f"B{k}", **uid)
    with pytest.raises(errors.SeriesChoiceError, match="2 CT series"):
        read_volume(folder)


def test_slices_without_a_direction_are_no_part_of_those_with_one(tmp_path: Path) -> None:
    folder = write_dicom_series(
        tmp_path / "case", SMALL, fault=lambda d, k: d.__delattr__("ImageOrientationPatient") if k > 8 else None
    )
    with pytest.raises(errors.SeriesChoiceError, match="9 slices"):
        read_volume(folder)


@pytest.mark.parametrize("cosine", [0.0009, 0.0012])
def test_directions_agree_within_a_thousandth(cosine: float, tmp_path: Path) -> None:
    turned = only(4, tags(ImageOrientationPatient=[1, cosine, 0, -cosine, 1, 0]))
    with pytest.raises(errors.GeometryError) as refused:
        read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=turned))
    assert ("another direction" in str(refused.value)) is (cosine > 0.001)


def test_one_place_that_the_header_contradicts_is_said(tmp_path: Path) -> None:
    def located(dataset: Dataset, k: int) -> None:
        dataset.SliceLocation = 7 * k + (k == 9)

    codes = [f.code for f in read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=located)).findings]
    assert codes == ["contradicting_header"]


def test_one_slice_without_its_location_proves_nothing(tmp_path: Path) -> None:
    def located(dataset: Dataset, k: int) -> None:
        if k != 3:
            dataset.SliceLocation = 2 * k

    assert read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=located)).findings == ()


@pytest.mark.parametrize("location", [7.0, 7.0 / np.cos(np.pi / 6), 6.4])
def test_locations_of_a_tilted_gantry_count_along_the_table_or_the_normal(location: float, tmp_path: Path) -> None:
    def lean(dataset: Dataset, k: int) -> None:
        shifted(lambda k: (0, 7.0 * k * np.tan(np.pi / 6), 0))(dataset, k)
        dataset.SliceLocation = f"{location * k:.4f}"

    codes = [f.code for f in read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=lean)).findings]
    assert codes == (["contradicting_header"] if location == 6.4 else []) + ["straightened"]


@pytest.mark.parametrize(("off", "said"), [(0.55, 0), (0.65, 1)])
def test_locations_of_thick_slices_may_be_a_twenty_fifth_off(off: float, said: int, tmp_path: Path) -> None:
    thick = phantom_volume((24, 20, 9), (7.0, 7.0, 15.0), orientation="LPS")

    def located(dataset: Dataset, k: int) -> None:
        dataset.SliceLocation = f"{(15 + off) * k:.4f}"

    codes = [f.code for f in read_volume(write_dicom_series(tmp_path / "case", thick, fault=located)).findings]
    assert codes == ["contradicting_header"] * said + ["coarse_spacing"]


def test_an_unknown_sequence_is_implicit_whatever_its_lengths_spell() -> None:
    """UN of undefined length holds implicit elements; a length of 21315 bytes spells 'CS', as a VR would."""
    long = struct.pack("<HHI", 0x0009, 0x1002, 0x5343) + bytes(0x5343)
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + long + b"\xfe\xff\x0d\xe0\0\0\0\0"
    unknown = b"\x09\0\x01\x10UN\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    modality = b"\x10\0\x20\0LO\x02\0P1"
    first = b"\x08\0\x60\0CS\x02\0CT"
    read = read_elements(first + unknown + modality, max_inflated=1 << 20)
    assert read.text(0x00100020) == "P1"
    assert len(read.elements[0x00091001][0][0x00091002]) == 0x5343
