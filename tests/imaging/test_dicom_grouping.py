"""Which slices belong together: how many make a part of their own, what they may differ in, which are looked at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medseg import errors
from medseg.imaging import Geometry, Volume, read_volume
from tests.dicom_edits import Edit, only, shifted, tags
from tests.phantoms import edit_dicom, phantom_volume, write_dicom_series, write_enhanced_ct

SMALL = phantom_volume((24, 20, 18), (7.0, 6.5, 7.0), orientation="LPS")
SAGITTAL = phantom_volume((24, 20, 18), (7.0, 6.5, 7.0), orientation="PIR")


@pytest.mark.parametrize("others", [3, 4])
def test_four_slices_of_another_direction_are_a_volume_of_their_own(others: int, tmp_path: Path) -> None:
    uid = {"series_uid": generate_uid(), "study_uid": "1.2.3"}
    folder = write_dicom_series(tmp_path / "case", SMALL, **uid)
    write_dicom_series(folder, SAGITTAL, skip=range(others, 24), names=lambda k: f"Z{k}.dcm", **uid)
    with pytest.raises(errors.InputError) as refused:
        read_volume(folder)
    if others == 4:
        assert isinstance(refused.value, errors.SeriesChoiceError)
        assert "different patients" not in str(refused.value)
        assert "1: 18 slices of 24 x 20, pixels 6.50 x 7.00 mm, every 7.00 mm" in str(refused.value)
        assert "2: 4 slices of 20 x 18, pixels 7.00 x 6.50 mm, every 7.00 mm" in str(refused.value)
        assert np.array_equal(read_volume(folder, series=1).hu, SMALL.hu)
    else:
        assert "Z0.dcm" in str(refused.value)


@pytest.mark.parametrize("slices", [2, 3])
def test_two_slices_are_the_least_of_a_phase(slices: int, tmp_path: Path) -> None:
    uid = {"series_uid": generate_uid(), "study_uid": "1.2.3", "skip": range(slices, 18)}
    folder = write_dicom_series(tmp_path / "case", SMALL, **uid)
    write_dicom_series(folder, SMALL, names=lambda k: f"B{k}.dcm", AcquisitionNumber=2, **uid)
    with pytest.raises(errors.SeriesChoiceError, match=rf"2: {slices} slices .* every 7\.00 mm"):
        read_volume(folder)


@pytest.mark.parametrize("choice", ["0", "", "3", "-1", "1.2.840"])
def test_choices_that_are_not_on_the_list(choice: str, tmp_path: Path) -> None:
    for n in (1, 2):
        write_dicom_series(tmp_path / "case" / str(n), SMALL, series_uid=f"1.2.826.0.{n}111")
    with pytest.raises(errors.SeriesChoiceError, match="no series"):
        read_volume(tmp_path / "case", series=choice)
    assert read_volume(tmp_path / "case", series="2").series == "1.2.826.0.2111"
    with pytest.raises(errors.SeriesChoiceError, match="holds 2 CT series"):
        read_volume(tmp_path / "case", series="111")


@pytest.mark.parametrize(("mm", "fits"), [(0.0009, True), (0.0012, False)])
def test_pixel_spacings_agree_within_a_thousandth(mm: float, fits: bool, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=only(4, tags(PixelSpacing=[6.5, 7.0 + mm])))
    if fits:
        assert read_volume(folder).geometry.matches(SMALL.geometry, 0.03)
    else:
        with pytest.raises(errors.GeometryError, match=r"IM0004\.dcm has another pixel spacing"):
            read_volume(folder)


@pytest.mark.parametrize(
    ("cosines", "fits"),
    [((1, 0, 0, 0.0009, 1, 0), True), ((1, 0, 0, 0.0011, 1, 0), False), ((1, 0, 0, 0, 1.0006, 0), False)],
)
def test_axes_of_a_picture_are_right_angled_within_a_thousandth(
    cosines: tuple[float, ...], fits: bool, tmp_path: Path
) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, ImageOrientationPatient=list(cosines))
    if fits:
        assert read_volume(folder).hu.shape == (24, 20, 18)
    else:
        with pytest.raises(errors.GeometryError, match="no pair of right-angled axes"):
            read_volume(folder)


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ({"PixelSpacing": [0, 7]}, "no valid pixel spacing"),
        ({"PixelSpacing": [7, -7]}, "no valid pixel spacing"),
        ({"Rows": 1}, "no image size"),
        ({"Columns": 1}, "no image size"),
        ({"Columns": None}, "no image size"),
    ],
)
def test_sizes_that_are_none(tag: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(errors.InputError, match=rf"IM0000\.dcm has {words}"):
        read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=tags(**tag)))


def test_submillimetre_pixels(tmp_path: Path) -> None:
    fine = Volume(SMALL.hu, Geometry(SMALL.geometry.shape, SMALL.affine * [0.1, 0.1, 0.1, 1]))
    volume = read_volume(write_dicom_series(tmp_path / "case", fine))
    assert volume.spacing_mm == pytest.approx((0.7, 0.65, 0.7), abs=1e-5)
    assert volume.geometry.matches(fine.geometry, 1e-3)


def test_two_frames_of_reference_are_said(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=only(4, tags(FrameOfReferenceUID="1.2.3")))
    assert [finding.code for finding in read_volume(folder).findings] == ["frames_of_reference"]
    edit_dicom(folder / "IM0004.dcm", lambda dataset: tags(FrameOfReferenceUID=None)(dataset, 4))
    assert read_volume(folder).findings == ()


def test_a_kind_of_frame_is_that_of_its_picture(tmp_path: Path) -> None:
    path = write_enhanced_ct(tmp_path / "enhanced.dcm", SMALL)

    def derived(dataset: Dataset) -> None:
        kind = Dataset()
        kind.FrameType = ["DERIVED", "PRIMARY", "VOLUME", "MIP"]
        dataset.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [kind]

    assert read_volume(path).findings == ()
    edit_dicom(path, derived)
    assert [finding.code for finding in read_volume(path).findings] == ["derived"]


def test_a_file_is_read_with_those_beside_it_and_not_below(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    (folder / "below").mkdir()
    for path in sorted(folder.glob("*.dcm"))[10:]:
        shutil.move(path, folder / "below" / path.name)
    assert read_volume(folder / "IM0003.dcm").hu.shape == (24, 20, 10)
    assert read_volume(folder).hu.shape == (24, 20, 18)


def test_resource_forks_of_macos_are_not_looked_at(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    moved = shifted(lambda k: (0, 0, 3.0))
    write_dicom_series(folder / "__MACOSX", SMALL, fault=moved, series_uid="1.2.3")
    assert np.array_equal(read_volume(folder).hu, SMALL.hu)
    (folder / "__MACOSX" / "note.dcm").write_bytes(b"")
    assert np.array_equal(read_volume(folder).hu, SMALL.hu)


def test_a_copy_is_a_copy_wherever_it_lies(tmp_path: Path) -> None:
    """The same slices again in a folder below, under their own names and identities."""
    folder = write_dicom_series(tmp_path / "case", SMALL, series_uid="1.2.3", study_uid="1.2.4")
    shutil.copytree(folder, folder / "again")
    volume = read_volume(folder)
    assert [finding.code for finding in volume.findings] == ["duplicate_slices"]
    assert "18 slice(s)" in str(volume.findings[0])
    assert volume.evidence["slices"] == 18


def _in_turn(**values: tuple[object, object]) -> Edit:
    return lambda dataset, k: [setattr(dataset, keyword, pair[k % 2]) for keyword, pair in values.items()]


@pytest.mark.parametrize("values", [{"ConvolutionKernel": ("B30f", "B70f")}, {"TemporalPositionIdentifier": (1, 2)}])
def test_two_reconstructions_that_interleave_are_two(values: dict[str, tuple[object, object]], tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=_in_turn(AcquisitionNumber=(1, 2), **values))
    with pytest.raises(errors.SeriesChoiceError, match=r"2: 9 slices .* every 14\.00 mm"):
        read_volume(folder)
    assert np.array_equal(read_volume(folder, series=2).hu, SMALL.hu[:, :, 1::2])


@pytest.mark.parametrize(
    ("number", "codes"),
    [
        (lambda k: 1 + k % 2, ["interleaved"]),  # odd and even slices in turn may be one scan, or two
        (lambda k: 1 + k // 2 % 2, []),  # a detector of two rows
        (lambda k: 1 + k, []),  # a number for each rotation
    ],
)
def test_acquisitions_that_go_back_and_forth_are_said(
    number: Callable[[int], int], codes: list[str], tmp_path: Path
) -> None:
    def numbered(dataset: Dataset, k: int) -> None:
        dataset.AcquisitionNumber, dataset.ConvolutionKernel = number(k), ("B30f", "B70f")[k > 8]

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=numbered))
    assert np.array_equal(volume.hu, SMALL.hu)
    assert [finding.code for finding in volume.findings] == codes


def test_three_phases_of_which_two_are_told_apart_by_nothing(tmp_path: Path) -> None:
    """A number that parts only some of them is no way to choose."""
    uid = {"series_uid": generate_uid(), "study_uid": "1.2.3"}
    folder = tmp_path / "case"
    for n, number in enumerate((1, 1, 2)):
        phase = phantom_volume((24, 20, 18), (7.0, 6.5, 7.0), orientation="LPS", seed=n)
        write_dicom_series(folder, phase, names=lambda k, n=n: f"{n}{k:02d}.dcm", AcquisitionNumber=number, **uid)
    with pytest.raises(errors.DuplicateSlicesError, match="different pictures"):
        read_volume(folder)
