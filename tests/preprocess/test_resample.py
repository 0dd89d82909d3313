"""Resampling between grids: what is kept, what is mirrored, what is averaged away."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.imaging.volume import Array, Geometry
from medseg.preprocess.resample import axis_weights, grid_like, resample, resample_labels

SPACINGS = [(1.0, 1.0, 1.0), (2.5, 0.7, 4.0), (0.9, 3.1, 1.3), (7.0, 7.0, 7.0)]


def geometry(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Geometry:
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-31.0, 17.0, 5.0)
    return Geometry(shape, affine)


def noise(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(7).normal(0, 100, shape).astype(np.float32)


def world_centre(grid: Geometry) -> Array:
    return np.asarray((grid.affine @ [*((np.array(grid.shape) - 1) / 2), 1])[:3])


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_grid_like_shares_centre_and_axes_and_covers_the_scan(spacing_mm: tuple[float, float, float]) -> None:
    turn = np.array([[0.8, -0.6, 0, 3], [0.6, 0.8, 0, -4], [0, 0, 1, 9], [0, 0, 0, 1.0]])
    source = Geometry((20, 31, 12), turn @ np.diag([1.1, 0.9, 2.5, 1]))
    grid = grid_like(source, spacing_mm)
    np.testing.assert_allclose(world_centre(grid), world_centre(source), atol=1e-9)
    np.testing.assert_allclose(grid.spacing_mm, spacing_mm)
    np.testing.assert_allclose(grid.affine[:3, :3] / grid.spacing_mm, turn[:3, :3], atol=1e-12)
    extent, wanted = np.multiply(grid.shape, grid.spacing_mm), np.multiply(source.shape, source.spacing_mm)
    assert (extent >= wanted - 0.01).all()
    assert (extent < wanted + spacing_mm).all()


def test_grid_like_takes_over_spacings_that_are_nearly_the_same() -> None:
    source = geometry((10, 10, 10), (2.00001, 2.0, 3.0))
    grid = grid_like(source, (2.0, 2.0, 3.0))
    assert grid.shape == source.shape
    assert grid.matches(source, 1e-9)


def test_grid_like_never_has_less_than_one_voxel() -> None:
    assert grid_like(geometry((3, 1, 1), (1.0, 0.5, 0.5)), (9.0, 9.0, 9.0)).shape == (1, 1, 1)


def test_the_same_grid_changes_nothing() -> None:
    source, array = geometry((9, 8, 7), (1.0, 2.0, 3.0)), noise((9, 8, 7))
    np.testing.assert_array_equal(resample(array, source, grid_like(source, (1.0, 2.0, 3.0))), array)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_constants_are_kept(spacing_mm: tuple[float, float, float]) -> None:
    source = geometry((14, 11, 9), (1.7, 1.7, 3.0))
    out = resample(np.full(source.shape, 37.0), source, grid_like(source, spacing_mm))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, 37.0, rtol=1e-6)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (4.0, 3.0, 4.0), (0.5, 0.25, 0.5)])
def test_means_are_kept_away_from_the_edge(spacing_mm: tuple[float, float, float]) -> None:
    source = geometry((48, 48, 48), (1.0, 1.0, 1.0))
    array = np.zeros(source.shape, np.float32)
    array[12:36, 12:36, 12:36] = noise((24, 24, 24)) + 50
    grid = grid_like(source, spacing_mm)
    total = resample(array, source, grid).sum(dtype=np.float64) * grid.voxel_ml
    assert total == pytest.approx(array.sum(dtype=np.float64) * source.voxel_ml, rel=2e-3)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_a_ramp_stays_where_it_is(spacing_mm: tuple[float, float, float]) -> None:
    """World position is kept: x in millimetres, resampled, is x in millimetres at the new places."""
    source = geometry((40, 5, 5), (2.0, 2.0, 2.0))
    ramp = np.broadcast_to((source.affine[0, 0] * np.arange(40) + source.affine[0, 3])[:, None, None], source.shape)
    grid = grid_like(source, spacing_mm)
    expected = grid.affine[0, 0] * np.arange(grid.shape[0]) + grid.affine[0, 3]
    inner = slice(5, -5) if grid.shape[0] > 12 else slice(2, -2)
    np.testing.assert_allclose(resample(ramp, source, grid)[inner, 0, 0], expected[inner], atol=0.1)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_scan_gives_the_mirrored_result(spacing_mm: tuple[float, float, float], axis: int) -> None:
    source, array = geometry((13, 16, 11), (1.5, 1.2, 2.0)), noise((13, 16, 11))
    grid = grid_like(source, spacing_mm)
    plain = resample(array, source, grid)
    mirrored = resample(np.flip(array, axis), source, grid)
    np.testing.assert_allclose(mirrored, np.flip(plain, axis), atol=1e-4)


def test_memory_layout_does_not_change_a_bit() -> None:
    """A file's orientation decides the strides of the reoriented view; sums must not depend on them."""
    source, array = geometry((61, 47, 33), (1.5, 1.2, 2.0)), noise((61, 47, 33))
    grid = grid_like(source, (4.0, 4.0, 2.5))
    plain = resample(array, source, grid)
    for view in (np.asfortranarray(array), np.ascontiguousarray(array[::-1, :, ::-1])[::-1, :, ::-1]):
        np.testing.assert_array_equal(resample(view, source, grid), plain)


def test_a_checkerboard_is_averaged_away_not_aliased() -> None:
    source = geometry((48, 48, 48), (1.0, 1.0, 1.0))
    board = np.where(np.indices(source.shape).sum(axis=0) % 2, 100.0, -100.0)
    for spacing_mm in ((2.0, 2.0, 2.0), (3.0, 3.0, 3.0), (4.0, 2.0, 3.0)):
        coarse = resample(board, source, grid_like(source, spacing_mm))[2:-2, 2:-2, 2:-2]
        assert np.abs(coarse).max() < 5


def test_going_up_interpolates_linearly_and_holds_the_ends() -> None:
    weights = axis_weights(3, 6, 0.5)
    expected = [[1, 0, 0], [0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75], [0, 0, 1]]
    np.testing.assert_allclose(weights, expected)


def test_labels_are_decided_by_the_largest_share() -> None:
    source = geometry((12, 12, 12), (1.0, 1.0, 1.0))
    labels = np.zeros(source.shape, np.uint8)
    labels[:6], labels[6:, :6] = 1, 2
    coarse = resample_labels(labels, source, grid_like(source, (3.0, 3.0, 3.0)), 3)
    assert coarse.dtype == np.uint8
    assert coarse.shape == (4, 4, 4)
    assert (coarse[:2] == 1).all()
    assert (coarse[2:, :2] == 2).all()
    assert (coarse[2:, 2:] == 0).all()
