"""How far slices may lie off an even, straight grid: just inside is read, just outside is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medseg import errors
from medseg.imaging import Volume, read_volume
from tests.dicom_edits import Edit, both, only, shifted, tags
from tests.phantoms import edit_dicom, phantom_volume, write_dicom_series


def _stack(step_mm: float, slices: int = 18) -> Volume:
    return phantom_volume((24, 20, slices), (7.0, 7.0, step_mm), orientation="LPS")


COARSE, MIDDLE, FINE = _stack(7.0), _stack(4.0), _stack(1.0)


def _codes(folder: Path, volume: Volume, fault: Edit | None = None) -> list[str]:
    return [finding.code for finding in read_volume(write_dicom_series(folder, volume, fault=fault)).findings]


def _refused(folder: Path, volume: Volume, fault: Edit, words: str) -> None:
    with pytest.raises(errors.GeometryError, match=words):
        read_volume(write_dicom_series(folder, volume, fault=fault))


@pytest.mark.parametrize(("volume", "inside", "outside"), [(COARSE, 0.12, 0.16), (FINE, 0.045, 0.055)])
def test_a_step_wavers_by_a_fiftieth_or_by_half_a_tenth(
    volume: Volume, inside: float, outside: float, tmp_path: Path
) -> None:
    """The larger of 0.05 mm and a fiftieth of the step; the wider one moves all that follows."""
    assert _codes(tmp_path / "in", volume, shifted(lambda k: (0, 0, inside * (k > 16)))) == []
    _refused(tmp_path / "out", volume, shifted(lambda k: (0, 0, outside * (k > 16))), "one even spacing")


@pytest.mark.parametrize(("volume", "inside", "outside"), [(COARSE, 0.13, 0.15), (FINE, 0.09, 0.11)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_slice_beside_the_line_of_the_others(
    axis: int, volume: Volume, inside: float, outside: float, tmp_path: Path
) -> None:
    """The larger of 0.1 mm and a fiftieth of the step."""
    aside = np.eye(3)[axis]
    assert _codes(tmp_path / "in", volume, only(9, shifted(lambda k: aside * inside))) == []
    _refused(tmp_path / "out", volume, only(9, shifted(lambda k: -aside * outside)), r"IM0009\.dcm lies 0\.1. mm off")


def _turned(far_mm: float, fixed: tuple[int, int]) -> Edit:
    """A picture turned within its plane about one of its corners, so that the opposite one moves by `far_mm`."""
    columns, rows = 23 * 7.0, 19 * 7.0
    angle = far_mm / math.hypot(columns, rows)
    c, s = math.cos(angle), math.sin(angle)
    pivot = np.array([columns * fixed[0], rows * fixed[1]])
    move = pivot - np.array([[c, -s], [s, c]]) @ pivot

    def turn(dataset: Dataset, k: int) -> None:
        dataset.ImageOrientationPatient = [f"{v:.10f}" for v in (c, s, 0, -s, c, 0)]

    return both(turn, shifted(lambda k: (*move, 0)))


@pytest.mark.parametrize("fixed", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_every_corner_of_every_picture_lies_on_the_grid(fixed: tuple[int, int], tmp_path: Path) -> None:
    assert _codes(tmp_path / "in", MIDDLE, only(9, _turned(0.0975, fixed))) == []
    _refused(tmp_path / "out", MIDDLE, only(9, _turned(0.1015, fixed)), r"IM0009\.dcm lies 0\.10 mm off")


def _leaning(degrees: float, side_mm: float = 0.0) -> Edit:
    """Slices that lean along their columns by an angle, and the last one by `side_mm` along its rows."""
    return shifted(lambda k: (side_mm * k / 17, 7.0 * k * math.tan(math.radians(degrees)), 0))


@pytest.mark.parametrize(("degrees", "codes"), [(0.044, []), (0.0485, []), (0.06, ["straightened"])])
def test_the_smallest_tilt(degrees: float, codes: list[str], tmp_path: Path) -> None:
    """Straight is what lies within 0.1 mm or within 0.05 degrees."""
    assert _codes(tmp_path / "case", COARSE, _leaning(degrees)) == codes


@pytest.mark.parametrize(("degrees", "side", "fits"), [(9.0, 0.36, True), (9.0, 0.4, False), (1.5, 0.09, True)])
def test_a_gantry_leans_along_one_axis(degrees: float, side: float, fits: bool, tmp_path: Path) -> None:
    """What lies beside the tilted axis: the larger of 0.1 mm and a fiftieth of the way (18.8 mm at 9 degrees)."""
    if fits:
        volume = read_volume(write_dicom_series(tmp_path / "case", COARSE, fault=_leaning(degrees, side)))
        assert [finding.code for finding in volume.findings] == ["straightened"]
        # Up to 0.1 mm stays where it is, and is owned up to; beyond it that axis is straightened, too.
        assert volume.evidence["largest_corner_error_mm"] == pytest.approx(0 if side > 0.1 else side, abs=0.001)
        assert volume.hu.shape[0] == COARSE.hu.shape[0] + (side > 0.1)
    else:
        _refused(tmp_path / "case", COARSE, _leaning(degrees, side), "not along one axis")


@pytest.mark.parametrize(("mm", "fits"), [(0.08, True), (0.12, False)])
def test_a_slice_beside_the_leaning_line(mm: float, fits: bool, tmp_path: Path) -> None:
    fault = both(_leaning(9.0), only(9, shifted(lambda k: (0, mm, 0))))
    if fits:
        assert _codes(tmp_path / "case", COARSE, fault) == ["straightened"]
    else:
        _refused(tmp_path / "case", COARSE, fault, "not along one axis")


@pytest.mark.parametrize(("degrees", "fits"), [(44.0, True), (46.0, False)])
def test_the_largest_tilt(degrees: float, fits: bool, tmp_path: Path) -> None:
    if fits:
        assert _codes(tmp_path / "case", COARSE, _leaning(degrees)) == ["straightened"]
    else:
        _refused(tmp_path / "case", COARSE, _leaning(degrees), "up to 45 degrees can be straightened")


@pytest.mark.parametrize(("named", "fits"), [(9.9, True), (-9.9, True), (10.1, False), (7.9, False)])
def test_a_named_tilt_agrees_within_a_degree(named: float, fits: bool, tmp_path: Path) -> None:
    """Whichever slice names it."""
    fault = both(_leaning(9.0), only(4, tags(GantryDetectorTilt=named)))
    if fits:
        assert _codes(tmp_path / "case", COARSE, fault) == ["straightened"]
    else:
        _refused(tmp_path / "case", COARSE, fault, rf"9\.0 degrees .*their header names {named:g}")


def test_two_slices_are_the_least_that_make_a_volume(tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", COARSE, skip=[k for k in range(18) if k not in (8, 9)]))
    assert volume.hu.shape == (24, 20, 2)
    assert volume.spacing_mm == pytest.approx((7, 7, 7), abs=1e-4)


def test_cosines_of_three_digits_move_no_slice(tmp_path: Path) -> None:
    """Directions are often rounded, so that they are not quite of length one; the places are what counts."""
    angle = math.radians(20.04)
    axes = np.round([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0]], 3)
    axes[0, 0] += 0.0004
    folder = write_dicom_series(tmp_path / "case", COARSE, ImageOrientationPatient=axes.ravel().tolist())
    volume = read_volume(folder)
    corners = np.array([[0, 0, k, 1] for k in range(18)]).T
    np.testing.assert_allclose(volume.affine @ corners, COARSE.affine @ corners, atol=0.02)


def test_a_copy_a_fiftieth_of_a_millimetre_beside_is_a_slice_of_its_own(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", COARSE)
    content = (folder / "IM0005.dcm").read_bytes()
    (folder / "copy.dcm").write_bytes(content)
    edit_dicom(folder / "copy.dcm", lambda dataset: both(tags(SOPInstanceUID=generate_uid()), _aside(0.02))(dataset, 5))
    with pytest.raises(errors.GeometryError, match=r"0\.02 to 7\.00 mm apart"):
        read_volume(folder)


def _aside(mm: float) -> Edit:
    return shifted(lambda k: (0, 0, mm))


@pytest.mark.parametrize(("extra", "fits"), [(0.26, True), (0.3, False)])
def test_a_gap_is_a_multiple_of_the_step(extra: float, fits: bool, tmp_path: Path) -> None:
    """A gap of two steps may be off by the tolerance of two."""
    fault = both(lambda dataset, k: k != 9 and None, shifted(lambda k: (0, 0, extra * (k > 9))))
    folder = write_dicom_series(tmp_path / "case", COARSE, fault=fault, skip=(9,))
    kind, words = (errors.MissingSlicesError, "1 slice") if fits else (errors.GeometryError, "one even spacing")
    with pytest.raises(kind, match=words):
        read_volume(folder)


def test_a_third_of_the_steps_may_be_gaps(tmp_path: Path) -> None:
    with pytest.raises(errors.MissingSlicesError, match=r"4 slice.* and in 3 more place"):
        read_volume(write_dicom_series(tmp_path / "case", COARSE, skip=(2, 5, 8, 11)))
