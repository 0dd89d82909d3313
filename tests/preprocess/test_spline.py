"""Cubic splines as matrices: what SciPy gives for the whole volume, on grids that span the scan."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.imaging.volume import Geometry
from medseg.preprocess.prepare import prepare
from medseg.preprocess.spline import nearest_weights, resample_by_splines, sliced_axis, spanning_grid
from tests.phantoms import ORIENTATIONS, orient, phantom_volume

SOURCE = Geometry((23, 18, 9), np.diag([0.9, 0.9, 2.5, 1.0]))
HU = np.random.default_rng(5).normal(0, 300, SOURCE.shape).astype(np.float32)
LIMITS = (-400.0, 500.0)


@pytest.mark.parametrize("spacing", [(2.0, 1.5, 2.5), (0.5, 0.5, 1.0), (3.0, 3.0, 3.0)])
def test_matrices_give_what_scipy_gives_for_the_volume(spacing: tuple[float, float, float]) -> None:
    grid = spanning_grid(SOURCE, spacing)
    assert grid.shape == tuple(
        round(s / w * n) for s, w, n in zip(SOURCE.spacing_mm, spacing, SOURCE.shape, strict=True)
    )
    zoom = np.array(grid.shape) / np.array(SOURCE.shape)
    clipped = HU.clip(*LIMITS)
    expected = ndimage.zoom(clipped.astype(float), zoom, order=3, mode="nearest", grid_mode=True).clip(*LIMITS)
    np.testing.assert_allclose(resample_by_splines(HU, SOURCE, grid, spacing, LIMITS), expected, atol=2e-3)


def test_the_grid_spans_the_scan_and_shares_its_centre() -> None:
    grid = spanning_grid(SOURCE, (2.0, 1.5, 4.0))
    np.testing.assert_allclose(
        np.array(grid.shape) * grid.spacing_mm, np.array(SOURCE.shape) * np.array(SOURCE.spacing_mm)
    )
    ends = [geometry.affine @ [*(np.array(geometry.shape) / 2 - 0.5), 1] for geometry in (grid, SOURCE)]
    np.testing.assert_allclose(*ends)


def test_long_voxels_are_taken_slice_by_slice() -> None:
    source = Geometry((12, 12, 6), np.diag([1.0, 1.0, 5.0, 1.0]))
    hu = HU[:12, :12, :6]
    grid = spanning_grid(source, (1.0, 1.0, 3.0))
    out = resample_by_splines(hu, source, grid, (1.0, 1.0, 3.0), LIMITS)
    nearest = [min(int((k + 0.5) * 6 / 10), 5) for k in range(10)]
    np.testing.assert_array_equal(out, hu.clip(*LIMITS)[:, :, nearest])


@pytest.mark.parametrize(
    ("spacings", "axis"),
    [
        (((1, 1, 3), (2, 2, 2)), None),
        (((1, 1, 3.1), (2, 2, 2)), 2),
        (((1, 1, 2), (7, 2, 2)), 0),
        (((1, 4, 4), (2, 2, 2)), None),
    ],
)
def test_which_axis_has_long_voxels(spacings: tuple[tuple[float, float, float], ...], axis: int | None) -> None:
    assert sliced_axis(*spacings) == axis


def test_nearest_slices_of_thinner_and_thicker_stacks() -> None:
    assert nearest_weights(3, 6).argmax(axis=1).tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest_weights(6, 3).argmax(axis=1).tolist() == [1, 3, 5]


def test_a_single_slice_stays_what_it_is() -> None:
    source = Geometry((4, 4, 1), np.eye(4))
    grid = spanning_grid(source, (1.0, 1.0, 0.5))
    out = resample_by_splines(HU[:4, :4, :1], source, grid, (1.0, 1.0, 0.5), LIMITS)
    np.testing.assert_array_equal(out, HU[:4, :4, [0, 0]].clip(*LIMITS))


@pytest.mark.parametrize("intensity", ["nnunet-window", "nnunet-z-score"])
def test_all_orientations_are_prepared_alike(intensity: str) -> None:
    volume = phantom_volume((19, 16, 13), (2.7, 3.1, 5.0))
    reference = prepare(volume, (4.0, 4.0, 4.0), (-100.0, 800.0), intensity)  # type: ignore[arg-type]
    assert reference.image.shape == (13, 12, 16)
    assert reference.image.min() >= reference.air - 1e-5
    for orientation in ORIENTATIONS[::5]:
        prepared = prepare(orient(volume, orientation), (4.0, 4.0, 4.0), (-100.0, 800.0), intensity)  # type: ignore[arg-type]
        np.testing.assert_allclose(prepared.image, reference.image, atol=1e-5, err_msg=orientation)
        assert prepared.grid.matches(reference.grid, 1e-9)
