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
