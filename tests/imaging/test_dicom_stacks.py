"""Which slices make the volume, and in which order: places, copies, series, phases, localizers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    generate_uid,
)

from medseg import errors
from medseg.imaging import read_volume
from tests.dicom_edits import only, tags
from tests.phantoms import phantom_volume, write_dicom_series

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
OTHER = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS", seed=2)


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


def test_gaps_are_counted_and_placed(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, skip=(4, 9, 10))
    with pytest.raises(errors.MissingSlicesError) as refused:
        read_volume(folder)
    first = SMALL.affine[2, 3] + 3 * 7.5
    assert f"3 slice(s) are missing after slice 4 of 15 (between {first:.1f} and {first + 15:.1f} mm)" in str(
        refused.value
    )
    assert "and in 1 more place(s)" in str(refused.value)


def test_one_gap_is_said_alone(tmp_path: Path) -> None:
    with pytest.raises(errors.MissingSlicesError) as refused:
        read_volume(write_dicom_series(tmp_path / "case", SMALL, skip=(4,)))
    assert "more place" not in str(refused.value)


def test_more_gaps_than_slices_are_another_spacing(tmp_path: Path) -> None:
    """Two, a gap, two, a gap ...: nobody can say which of them is the spacing."""
    with pytest.raises(errors.GeometryError, match="one even spacing is needed") as refused:
        read_volume(write_dicom_series(tmp_path / "case", SMALL, skip=(2, 5, 8, 11, 14)))
    assert "7.50 to 15.00 mm apart" in str(refused.value)


@pytest.mark.parametrize(("tilt", "said"), [(0.4, 0), (0.5, 1), (-12, 1)])
def test_a_tilt_in_name_alone_is_said(tilt: float, said: int, tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, GantryDetectorTilt=tilt))
    assert [finding.code for finding in volume.findings] == ["gantry_tilt"] * said
    assert volume.geometry.matches(SMALL.geometry)


@pytest.mark.parametrize(("mm", "fits"), [(0.05, True), (0.5, False)])
def test_a_slice_a_little_beside_the_line(mm: float, fits: bool, tmp_path: Path) -> None:
    def aside(dataset: pydicom.Dataset, k: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [float(x) + mm * (k == 9), y, z]

    folder = write_dicom_series(tmp_path / "case", SMALL, fault=aside)
    if fits:
        assert read_volume(folder).geometry.matches(SMALL.geometry)
    else:
        with pytest.raises(errors.GeometryError, match=r"IM0009\.dcm lies 0\.50 mm off the line"):
            read_volume(folder)


def test_a_step_of_one_and_a_half_is_no_missing_slice(tmp_path: Path) -> None:
    def wider(dataset: pydicom.Dataset, k: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 3.75 * (k > 9)]

    with pytest.raises(errors.GeometryError, match=r"7\.50 to 11\.25 mm apart; one even spacing is needed"):
        read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=wider))


def test_a_copy_a_few_thousandths_beside_is_a_copy(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    copy = pydicom.dcmread(folder / "IM0005.dcm")
    x, y, z = copy.ImagePositionPatient
    copy.SOPInstanceUID, copy.ImagePositionPatient = generate_uid(), [x, y, f"{float(z) + 0.003:.3f}"]
    copy.save_as(folder / "copy.dcm")
    volume = read_volume(folder)
    assert [finding.code for finding in volume.findings] == ["duplicate_slices"]
    assert np.array_equal(volume.hu, SMALL.hu)


def test_a_volume_in_words_names_no_series(tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, series_uid="1.2.826.0.1.77777"))
    assert volume.series == "1.2.826.0.1.77777"
    assert "77777" not in repr(volume)


def test_a_tilt_that_one_slice_names_is_said(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=only(4, tags(GantryDetectorTilt=12)))
    assert [finding.code for finding in read_volume(folder).findings] == ["gantry_tilt"]


def test_a_count_that_one_slice_names_is_compared(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=only(4, tags(ImagesInAcquisition=20)))
    assert [finding.code for finding in read_volume(folder).findings] == ["slices_missing_at_end"]
