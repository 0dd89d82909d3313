"""Geometry computed twice: by its formulas, and voxel by voxel, for random oblique grids of three spacings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medseg import errors
from medseg.imaging.dicom_geometry import Layout
from medseg.imaging.dicom_regrid import straighten, straightened_shape
from medseg.imaging.grid import check_affine, grids_differ
from medseg.imaging.volume import Geometry, axis_lengths, corner_distance, reorient, restore_orientation

SEEDS = range(6)
SHAPE = (5, 7, 6)


def _turn(angle: float, axis: np.ndarray) -> np.ndarray:
    return np.asarray(Rotation.from_rotvec(np.radians(angle) * axis / np.linalg.norm(axis)).as_matrix())


def _grid(rng: np.random.Generator) -> Geometry:
    affine = np.eye(4)
    axes = _turn(float(rng.uniform(0, 180)), rng.normal(size=3))[:, rng.permutation(3)] * rng.choice([-1, 1], 3)
    affine[:3, :3] = axes * rng.permutation([0.7, 1.9, 4.3])
    affine[:3, 3] = rng.normal(0, 100, 3)
    return Geometry(SHAPE, affine)


def _places(grid: Geometry) -> np.ndarray:
    index = np.stack([*np.indices(grid.shape), np.ones(grid.shape)])
    return np.tensordot(grid.affine, index, 1)[:3]


@pytest.mark.parametrize("seed", SEEDS)
def test_spacing_and_volume_are_those_of_neighbours(seed: int) -> None:
    grid = _grid(np.random.default_rng(seed))
    place = _places(grid)
    steps = [np.linalg.norm(np.diff(place, axis=axis + 1), axis=0).mean() for axis in range(3)]
    assert grid.spacing_mm == pytest.approx(steps)
    assert grid.voxel_ml == pytest.approx(np.prod(steps) / 1000)
    check_affine(Path("scan"), grid.affine)
    np.testing.assert_allclose(grid.affine_lps[:3, 3], place[:, 0, 0, 0] * [-1, -1, 1])
    np.testing.assert_array_equal(grid.affine_lps[3], [0, 0, 0, 1])


@pytest.mark.parametrize("seed", SEEDS)
def test_canonical_order_moves_no_voxel(seed: int) -> None:
    grid = _grid(np.random.default_rng(seed))
    turned = grid.canonical()
    for at_home, elsewhere in zip(_places(grid), _places(turned), strict=True):
        np.testing.assert_allclose(reorient(at_home, grid.to_canonical), elsewhere)
        np.testing.assert_allclose(restore_orientation(elsewhere, grid.to_canonical), at_home)
    # Each axis of the canonical grid is the one that points most to right, front or head.
    assert (np.argmax(np.abs(turned.affine[:3, :3]) / turned.spacing_mm, axis=1) == [0, 1, 2]).sum() >= 1
    assert np.linalg.det(turned.affine[:3, :3] / turned.spacing_mm) != 0


@pytest.mark.parametrize("seed", SEEDS)
def test_two_grids_are_as_far_apart_as_their_farthest_voxels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = _grid(rng)
    second = Geometry(SHAPE, first.affine + np.vstack([rng.normal(0, 0.1, (3, 4)), np.zeros(4)]))
    apart = float(np.linalg.norm(_places(first) - _places(second), axis=0).max())
    assert corner_distance(first.affine, second.affine, SHAPE) == pytest.approx(apart)
    assert first.matches(second, apart * 1.001)
    assert not first.matches(second, apart * 0.999)


@pytest.mark.parametrize("corner", list(np.ndindex(2, 2, 2)))
def test_every_corner_counts(corner: tuple[int, int, int]) -> None:
    """Grids that meet in all corners but one: every other one is nearer to the meeting corner."""
    first, second = np.diag([2.0, 3.0, 4.0, 1.0]), np.diag([2.1, 3.1, 4.1, 1.0])
    opposite = (np.array(SHAPE) - 1) * (1 - np.array(corner))
    second[:3, 3] = (first - second)[:3, :3] @ opposite
    expected = float(np.linalg.norm((np.array(SHAPE) - 1) * 0.1))
    assert corner_distance(first, second, SHAPE) == pytest.approx(expected)


@pytest.mark.parametrize("degrees", [0.05, 0.15, 1.0, 60.0, 90.0, 179.0])
def test_the_angle_between_two_grids_is_said(degrees: float) -> None:
    rng = np.random.default_rng(3)
    first = _grid(rng).affine
    second = first.copy()
    normal = first[:3, 2] / np.linalg.norm(first[:3, 2])
    second[:3, :3] = _turn(degrees, normal) @ first[:3, :3]
    said = grids_differ(first, second, SHAPE, 0.01)
    assert said == ("" if degrees < 0.1 else f"the axes differ by {degrees:.2f} degrees")


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("far_mm", "differ"), [(0.049, False), (0.051, True)])
def test_a_stretch_counts_at_the_far_end(axis: int, far_mm: float, differ: bool) -> None:
    first = np.diag([2.0, 3.0, 4.0, 1.0])
    second = first.copy()
    second[axis, axis] += far_mm / SHAPE[axis]
    assert bool(grids_differ(first, second, SHAPE, 0.05)) is differ


@pytest.mark.parametrize(("far_mm", "differ"), [(0.049, False), (0.051, True)])
def test_a_shift_counts_as_the_crow_flies(far_mm: float, differ: bool) -> None:
    first, second = np.diag([2.0, 3.0, 4.0, 1.0]), np.diag([2.0, 3.0, 4.0, 1.0])
    second[:3, 3] += np.array([2, 3, 6]) / 7 * far_mm
    assert bool(grids_differ(first, second, SHAPE, 0.05)) is differ


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("mm", "fits"), [(0.0199, False), (0.0201, True), (49.9, True), (50.1, False)])
def test_spacings_of_a_ct(axis: int, mm: float, fits: bool) -> None:
    spacing = np.array([0.9, 0.9, 0.9])
    spacing[axis] = mm
    affine = np.eye(4)
    affine[:3, :3] = _turn(50.0, np.array([1.0, 2.0, 3.0])) * spacing
    assert axis_lengths(affine) == pytest.approx(spacing)
    if fits:
        check_affine(Path("scan"), affine)
    else:
        with pytest.raises(errors.GeometryError, match="cannot be that of a CT"):
            check_affine(Path("scan"), affine)


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize(("sine", "fits"), [(0.0009, True), (0.0011, False), (-0.0011, False), (0.9999999, False)])
def test_axes_at_right_angles(pair: tuple[int, int], sine: float, fits: bool) -> None:
    axes = np.eye(3)
    axes[list(pair), pair[1]] = sine, np.sqrt(1 - sine**2)
    affine = np.eye(4)
    affine[:3, :3] = _turn(50.0, np.array([1.0, 2.0, 3.0])) @ axes * (0.5, 0.7, 9.0)
    if fits:
        check_affine(Path("scan"), affine)
    else:
        with pytest.raises(errors.GeometryError, match=r"sheared|doubled"):
            check_affine(Path("scan"), affine)


def _layout(drift: np.ndarray | None, along: np.ndarray | None) -> Layout:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    return Layout(affine, drift, along, 10.0)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("way", [1, -1])
@pytest.mark.parametrize("uneven", [True, False])
def test_the_size_is_known_before_slices_are_straightened(axis: int, way: int, uneven: bool) -> None:
    drift = np.zeros((6, 2))
    drift[:, axis] = way * np.arange(6) * 2.2
    along = np.array([0, 4.0, 8.0, 12.0, 18.0, 24.0]) if uneven else None
    hu = np.random.default_rng(1).normal(0, 100, SHAPE).astype(np.float32)
    for layout in (_layout(drift, along), _layout(None, along), _layout(drift, None)):
        assert straighten(hu, layout)[0].shape == straightened_shape(SHAPE, layout)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("way", [1, -1])
def test_a_straightened_picture_ends_half_a_pixel_beyond_its_edge(axis: int, way: int) -> None:
    """Slices half a pixel beside each other: the outermost half pixel shows the edge itself, beyond is air."""
    drift = np.zeros((6, 2))
    drift[:, axis] = way * np.arange(6) * (1.0, 1.5)[axis]
    hu = np.random.default_rng(1).normal(0, 100, SHAPE).astype(np.float32)
    found, affine, _ = straighten(hu, _layout(drift, None))
    reach = 3  # five halves
    assert affine[axis, 3] == (-reach * (2, 3)[axis] if way < 0 else 0)
    for k in range(6):
        rows, own = np.moveaxis(found[:, :, k], axis, 0), np.moveaxis(hu[:, :, k], axis, 0)
        first = (k if way > 0 else 2 * reach - k) / 2
        at = np.arange(len(rows)) - first
        assert (rows[(at < -0.5) | (at > len(own) - 0.5)] == -1024).all()
        for edge, there in ((own[0], at == -0.5), (own[-1], at == len(own) - 0.5)):
            assert all(np.array_equal(row, edge) for row in rows[there])
