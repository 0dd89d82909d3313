"""A scan on the model's grid: axes in RAS order, HU in the window, oblique scans upright."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.imaging.volume import Geometry, Volume
from medseg.preprocess.intensity import Intensity, normalise, normalise_in_place, standardise, statistics
from medseg.preprocess.prepare import (
    AIR_HU,
    MAX_OBLIQUE_DEG,
    METAL_HU,
    model_grid,
    obliqueness_deg,
    prepare,
    to_grid,
    upright_grid,
)
from tests.inference.planted import rotated_volume
from tests.phantoms import ORIENTATIONS, orient, phantom_volume

WINDOW_HU = (-300.0, 900.0)


def test_the_window_spans_minus_one_to_three() -> None:
    hu = np.array([-2000.0, -300.0, 0.0, 300.0, 900.0, 5000.0], np.float32)
    expected = [-1.0, -1.0, 0.0, 1.0, 3.0, 3.0]
    np.testing.assert_allclose(normalise(hu, WINDOW_HU), expected, atol=1e-6)
    assert normalise(hu, WINDOW_HU).dtype == np.float32
    np.testing.assert_allclose(normalise(torch.from_numpy(hu), WINDOW_HU).numpy(), expected, atol=1e-6)
    assert (normalise_in_place(hu.copy(), WINDOW_HU) == normalise(hu, WINDOW_HU)).all()


def test_all_48_orientations_are_prepared_alike_to_the_bit() -> None:
    volume = phantom_volume((19, 16, 13), (2.7, 3.1, 5.0))
    reference = prepare(volume, (4.0, 4.0, 4.0), WINDOW_HU)
    for orientation in ORIENTATIONS:
        turned = orient(volume, orientation)
        prepared = prepare(turned, (4.0, 4.0, 4.0), WINDOW_HU)
        np.testing.assert_array_equal(prepared.image, reference.image, err_msg=orientation)
        assert prepared.grid.matches(reference.grid, 1e-9)
        assert prepared.grid.orientation == "RAS"
        assert prepared.source is turned.geometry


def test_the_prepared_image_is_what_the_network_takes() -> None:
    prepared = prepare(phantom_volume((12, 12, 12), orientation="SLP"), (4.0, 4.0, 4.0), WINDOW_HU)
    assert prepared.image.dtype == np.float32
    assert prepared.image.shape == prepared.grid.shape
    assert (prepared.image.min(), prepared.image.max()) >= (-1.0, -1.0)
    assert prepared.image.max() <= 3.0


def test_padding_and_extended_scales_do_not_bleed_into_their_surroundings() -> None:
    """One voxel at -3024 or 30000 HU weighs no more in a mean than air or metal does in training."""
    hu = np.zeros((8, 8, 8), np.float32)
    hu[0, 0, 0], hu[7, 7, 7] = -3024.0, 30000.0
    bounded = np.clip(hu, AIR_HU, METAL_HU)
    geometry = Geometry((8, 8, 8), np.eye(4))
    (wild, _), (tame, _) = (to_grid(Volume(array, geometry), (4.0, 4.0, 4.0)) for array in (hu, bounded))
    np.testing.assert_array_equal(wild, tame)
    assert hu[0, 0, 0] == -3024.0


def test_the_scan_itself_is_left_alone() -> None:
    volume = phantom_volume((10, 10, 10), orientation="LPS")
    before = volume.hu.copy()
    prepare(volume, (4.0, 4.0, 4.0), WINDOW_HU)
    np.testing.assert_array_equal(volume.hu, before)


@pytest.mark.parametrize("angle_deg", [0.0, 5.0, 14.0, 16.0, 30.0, 44.0])
def test_only_scans_beyond_the_limit_are_turned_upright(angle_deg: float) -> None:
    volume = rotated_volume(angle_deg, sphere_hu=400.0, box_hu=40.0, size=16, step_mm=6.0)
    tilt = obliqueness_deg(volume.geometry.canonical())
    assert tilt <= angle_deg + 1e-6
    _, grid = to_grid(volume, (6.0, 6.0, 6.0))
    assert obliqueness_deg(grid) == pytest.approx(0.0 if tilt > MAX_OBLIQUE_DEG else tilt, abs=1e-3)


def test_the_upright_grid_encloses_the_scan() -> None:
    source = rotated_volume(30.0, sphere_hu=0.0, box_hu=0.0, size=12).geometry
    grid = upright_grid(source, (4.0, 5.0, 3.0))
    np.testing.assert_allclose(grid.affine[:3, :3], np.diag([4.0, 5.0, 3.0]))
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in source.shape])).reshape(3, -1)
    index = np.linalg.inv(grid.affine) @ source.affine @ np.vstack([corners, np.ones(8)])
    assert (index[:3] >= -1e-9).all()
    assert (index[:3] <= np.array(grid.shape)[:, None] - 1 + 1e-9).all()
    assert (np.array(grid.shape) - 2 < index[:3].max(axis=1)).all()


def test_a_z_score_is_of_the_scans_own_voxels() -> None:
    volume = phantom_volume((20, 18, 16), (2.0, 2.0, 5.0), orientation="LPS")
    window = (-1024.0, 3071.0)
    prepared = prepare(volume, (4.0, 4.0, 4.0), window, "z-score")
    own = volume.hu.clip(*window)
    hu, _ = to_grid(volume, (4.0, 4.0, 4.0))
    np.testing.assert_allclose(prepared.image, (hu - own.mean()) / own.std(), atol=1e-4)
    assert prepared.air == pytest.approx((-1024 - own.mean()) / own.std(), abs=1e-4)
    assert prepared.image.min() >= prepared.air - 1e-5


def test_a_z_score_after_a_window_and_of_a_flat_scan() -> None:
    hu = np.array([-500.0, 0.0, 100.0, 900.0], np.float32)
    assert statistics(hu, (0.0, 200.0)) == (pytest.approx(75.0), pytest.approx(np.std([0, 0, 100, 200])))
    assert statistics(np.full((2, 2), 7.0, np.float32), (0.0, 200.0)) == (7.0, 1.0)
    np.testing.assert_allclose(standardise(hu, (0.0, 200.0), 75.0, 50.0), [-1.5, -1.5, 0.5, 2.5])


def test_air_in_a_window_is_minus_one() -> None:
    assert prepare(phantom_volume((8, 8, 8)), (4.0, 4.0, 4.0), WINDOW_HU).air == -1.0


@pytest.mark.parametrize("intensity", ["window", "z-score", "nnunet-window", "nnunet-z-score"])
@pytest.mark.parametrize("angle_deg", [0.0, 5.0, 40.0])
def test_the_grid_is_known_before_the_scan_is_prepared(angle_deg: float, intensity: Intensity) -> None:
    volume = rotated_volume(angle_deg, sphere_hu=400.0, box_hu=-250.0, size=23)
    prepared = prepare(volume, (4.1, 3.7, 5.3), (-300.0, 900.0), intensity)
    expected = model_grid(volume.geometry, (4.1, 3.7, 5.3), intensity)
    assert prepared.image.shape == expected.shape
    np.testing.assert_allclose(prepared.grid.affine, expected.affine)
