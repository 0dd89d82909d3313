"""Tilted, unevenly spaced and multi-frame CT: brought onto a straight grid where every organ lies where it lay."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from medseg import errors
from medseg.imaging import Volume, read_volume
from tests.phantoms import (
    BOX_CENTRE_MM,
    SPHERE_CENTRE_MM,
    SPHERE_ML,
    inside_box,
    inside_sphere,
    phantom_at,
    phantom_volume,
    write_dicom_series,
    write_enhanced_ct,
)

ORIGIN = np.array([7.0, -11.0, 23.0])
SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS", noise_hu=0)


def _write_slices(
    folder: Path, places: np.ndarray, orientation: np.ndarray, pixel_mm: float = 2.5, **tags: object
) -> Path:
    """Slices of the phantom at LPS `places`, each sampled where it really lies."""
    shape = (72, 60)
    grid = phantom_volume((72, 60, len(places)), (pixel_mm, pixel_mm, 1.0), orientation="LPS", noise_hu=0)

    def place(dataset: pydicom.Dataset, k: int) -> None:
        i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
        lps = places[k][:, None, None] + np.multiply.outer(orientation[0], i * pixel_mm)
        lps = lps + np.multiply.outer(orientation[1], j * pixel_mm)
        hu = phantom_at(lps * np.array([-1, -1, 1])[:, None, None] - ORIGIN[:, None, None])
        dataset.ImagePositionPatient = [f"{v:.6f}" for v in places[k]]
        dataset.ImageOrientationPatient = [f"{v:.9f}" for v in orientation.ravel()]
        dataset.PixelData = np.round(hu + 1024).T.astype("<i2").tobytes()

    return write_dicom_series(folder, grid, fault=place, **tags)


def _tilted(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Places along the table, and slices that lean by an angle."""
    angle = math.radians(degrees)
    across, down = np.array([1.0, 0, 0]), np.array([0, math.cos(angle), math.sin(angle)])
    middle = ORIGIN * [-1, -1, 1]
    first = middle - across * 36 * 2.5 - down * 30 * 2.5
    heights = np.arange(-80.0, 80.1, 2.5)
    return first + np.outer(heights, [0, 0, 1]), np.array([across, down])


def _found(volume: Volume, hu: float, near: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, float]:
    """Centre (RAS mm from the phantom's middle) and ml of an organ of `hu` in tissue of 40; edges count in part."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.hu.shape], indexing="ij"))
    mm = np.tensordot(volume.affine[:3, :3], index, 1) + (volume.affine[:3, 3] - ORIGIN)[:, None, None, None]
    share = np.clip((volume.hu - 40) / (hu - 40), 0, 1) * near(mm)
    return (mm * share).sum(axis=(1, 2, 3)) / share.sum(), float(share.sum()) * volume.geometry.voxel_ml


def _wide(shape: Callable[[np.ndarray], np.ndarray], centre: tuple[float, ...]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda mm: shape((mm - np.array(centre)[:, None, None, None]) * 0.8 + np.array(centre)[:, None, None, None])


@pytest.mark.parametrize("degrees", [5.0, 15.0, -22.5, 30.0])
def test_tilted_gantry_is_straightened_and_said(degrees: float, tmp_path: Path) -> None:
    places, orientation = _tilted(degrees)
    volume = read_volume(_write_slices(tmp_path / "case", places, orientation, GantryDetectorTilt=degrees))
    assert [f.code for f in volume.findings] == ["straightened"]
    assert f"{abs(degrees):.1f} degrees" in str(volume.findings[0])
    axes = volume.affine[:3, :3] / volume.spacing_mm
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-6
    assert volume.spacing_mm == pytest.approx((2.5, 2.5, 2.5 * math.cos(math.radians(degrees))), abs=1e-4)
    centre, ml = _found(volume, 120, _wide(inside_sphere, SPHERE_CENTRE_MM))
    assert centre == pytest.approx(SPHERE_CENTRE_MM, abs=0.4)
    assert ml == pytest.approx(SPHERE_ML, rel=0.03)
    box, _ = _found(volume, -90, inside_box)
    assert box == pytest.approx(BOX_CENTRE_MM, abs=0.4)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("way", [1, -1])
def test_tilt_of_whole_pixels_moves_every_value_exactly(axis: int, way: int, tmp_path: Path) -> None:
    def lean(dataset: pydicom.Dataset, k: int) -> None:
        place = [float(v) for v in dataset.ImagePositionPatient]
        place[axis] += way * 3.5 * k
        dataset.ImagePositionPatient = place

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=lean))
    size = SMALL.hu.shape[axis]
    assert volume.hu.shape[axis] == size + 9
    assert volume.spacing_mm == pytest.approx(SMALL.spacing_mm)
    first = SMALL.affine[:3, 3] - (9 if way < 0 else 0) * SMALL.affine[:3, axis]
    np.testing.assert_allclose(volume.affine[:3, 3], first, atol=1e-4)
    for k in range(0, 18, 2):  # every second slice lies whole pixels beside the first
        shift = k // 2 if way > 0 else 9 - k // 2
        rows = np.moveaxis(volume.hu[:, :, k], axis, 0)
        assert np.array_equal(rows[shift : shift + size], np.moveaxis(SMALL.hu[:, :, k], axis, 0))
        assert (rows[:shift] == -1024).all()
        assert (rows[shift + size :] == -1024).all()


def test_half_a_pixel_of_tilt_is_the_mean_of_two(tmp_path: Path) -> None:
    def lean(dataset: pydicom.Dataset, k: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + 3.5 * k, z]

    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=lean))
    for k in range(1, 18, 2):
        first, picture = k // 2, SMALL.hu[:, :, k]
        halves = (picture[:, 1:] + picture[:, :-1]) / 2
        assert np.array_equal(volume.hu[:, first + 1 : first + 20, k], halves)


def _changing(heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first = ORIGIN * [-1, -1, 1] - np.array([90.0, 75.0, 0])
    return first + np.outer(heights, [0, 0, 1]), np.eye(3)[:2]


UNEVEN = np.concatenate([np.arange(-80, 0, 2.5), np.arange(0, 80.1, 5)])


def test_uneven_spacing_is_interpolated_and_said(tmp_path: Path) -> None:
    places, orientation = _changing(UNEVEN)
    volume = read_volume(_write_slices(tmp_path / "case", places, orientation))
    assert [f.code for f in volume.findings] == ["uneven_spacing"]
    assert volume.hu.shape == (72, 60, 65)
    assert volume.spacing_mm == pytest.approx((2.5, 2.5, 2.5), abs=1e-4)
    centre, ml = _found(volume, 120, _wide(inside_sphere, SPHERE_CENTRE_MM))
    assert centre == pytest.approx(SPHERE_CENTRE_MM, abs=0.4)
    assert ml == pytest.approx(SPHERE_ML, rel=0.03)


def test_slices_between_are_the_mean_of_their_neighbours(tmp_path: Path) -> None:
    """Eight steps of 3 mm, then nine of 6 mm: the even grid has a new slice in the middle of each wide step."""
    close = phantom_volume((24, 20, 18), (7.0, 7.0, 3.0), orientation="LPS")

    def spread(dataset: pydicom.Dataset, k: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 3 * max(0, k - 8)]

    volume = read_volume(write_dicom_series(tmp_path / "case", close, fault=spread))
    assert [finding.code for finding in volume.findings] == ["uneven_spacing"]
    assert "3.00 to 6.00 mm apart" in str(volume.findings[0])
    assert "even 3.00 mm, 27 slices" in str(volume.findings[0])
    assert volume.hu.shape == (24, 20, 27)
    np.testing.assert_allclose(volume.affine, close.affine, atol=1e-4)
    assert np.array_equal(volume.hu[:, :, :9], close.hu[:, :, :9])
    assert np.array_equal(volume.hu[:, :, 10::2], close.hu[:, :, 9:])
    assert np.array_equal(volume.hu[:, :, 9::2], (close.hu[:, :, 8:-1] + close.hu[:, :, 9:]) / 2)


@pytest.mark.parametrize("numbers", ["with a hole", "none"])
def test_uneven_spacing_that_may_be_a_gap_is_refused(numbers: str, tmp_path: Path) -> None:
    places, orientation = _changing(UNEVEN)
    folder = _write_slices(tmp_path / "case", places, orientation, SliceThickness="2.5")
    for path in sorted(folder.iterdir())[33:]:
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = None if numbers == "none" else dataset.InstanceNumber * 2
        dataset.save_as(path)
    with pytest.raises(errors.GeometryError, match=r"16 slice.s. are missing"):
        read_volume(folder)


def test_slices_as_thick_as_their_distance_prove_that_none_is_missing(tmp_path: Path) -> None:
    places, orientation = _changing(UNEVEN)
    folder = _write_slices(tmp_path / "case", places, orientation, InstanceNumber=None)
    for path in sorted(folder.iterdir())[32:]:
        dataset = pydicom.dcmread(path)
        dataset.SliceThickness = 5
        dataset.save_as(path)
    for path in sorted(folder.iterdir())[:32]:
        dataset = pydicom.dcmread(path)
        dataset.SliceThickness = 2.5
        dataset.save_as(path)
    assert [f.code for f in read_volume(folder).findings] == ["uneven_spacing"]


ORDERS = {
    "as they lie": list(range(18)),
    "from above": list(range(17, -1, -1)),
    "mixed": [(k * 7) % 18 for k in range(18)],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("syntax", ["explicit", "implicit", "jpegls", "rle", "rescale of its own for each"])
def test_enhanced_ct_is_read_by_its_frames(order: str, syntax: str, tmp_path: Path) -> None:
    slopes = (lambda k: 1.0 + 0.5 * k) if syntax.startswith("rescale") else (lambda k: 1.0)
    path = write_enhanced_ct(tmp_path / "enhanced.dcm", SMALL, order=ORDERS[order], slope=slopes)
    if syntax in ("jpegls", "rle"):
        dataset = pydicom.dcmread(path)
        dataset.compress({"jpegls": pydicom.uid.JPEGLSLossless, "rle": pydicom.uid.RLELossless}[syntax])
        dataset.save_as(path)
    if syntax == "implicit":
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=True)
    volume = read_volume(path)
    tolerance = 5.0 if syntax.startswith("rescale") else 0.0
    assert np.abs(volume.hu - SMALL.hu).max() <= tolerance
    assert np.allclose(volume.affine, SMALL.affine, atol=1e-4)
    assert volume.findings == ()


def test_enhanced_ct_without_a_frame_s_place(tmp_path: Path) -> None:
    path = write_enhanced_ct(tmp_path / "enhanced.dcm", SMALL)
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence
    dataset.save_as(path)
    with pytest.raises(errors.GeometryError, match=r"enhanced\.dcm frame 5 has no place"):
        read_volume(path)


@pytest.mark.parametrize("frames", [17, 19])
def test_enhanced_ct_that_miscounts(frames: int, tmp_path: Path) -> None:
    path = write_enhanced_ct(tmp_path / "enhanced.dcm", SMALL)
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = frames
    dataset.save_as(path)
    with pytest.raises(errors.CorruptFileError, match=f"says that it has {frames} frames and describes 18"):
        read_volume(path)


def test_enhanced_ct_of_two_phases_asks(tmp_path: Path) -> None:
    other = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS", seed=2)
    uid, study = generate_uid(), generate_uid()
    folder = tmp_path / "case"
    for number, volume in enumerate((SMALL, other), 1):
        write_enhanced_ct(folder / f"{number}.dcm", volume, series_uid=uid, study_uid=study, phase=number)
    with pytest.raises(errors.SeriesChoiceError) as refused:
        read_volume(folder)
    assert len(refused.value.series) == 2
    assert np.array_equal(read_volume(folder, series=2).hu, other.hu)


@pytest.mark.parametrize("degrees", [1.0, -1.0])
def test_a_picture_turned_within_its_plane_is_shifted_along_both_axes(degrees: float, tmp_path: Path) -> None:
    places, (across, down) = _tilted(25.0)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    volume = read_volume(
        _write_slices(tmp_path / "case", places, np.array([c * across + s * down, c * down - s * across]))
    )
    assert [f.code for f in volume.findings] == ["straightened"]
    assert volume.evidence["largest_corner_error_mm"] < 0.01
    assert volume.hu.shape[0] == 72 + 1  # 160 mm x sin 25 x sin 1 = 1.2 mm
    centre, ml = _found(volume, 120, _wide(inside_sphere, SPHERE_CENTRE_MM))
    assert centre == pytest.approx(SPHERE_CENTRE_MM, abs=0.15)
    assert ml == pytest.approx(SPHERE_ML, rel=0.03)
