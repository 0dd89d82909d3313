"""The way back: smooth, complete, alike in every orientation, and in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from medseg.imaging.volume import Array, Geometry, Volume
from medseg.preprocess.prepare import upright_grid
from medseg.preprocess.resample import grid_like
from medseg.preprocess.restore import SLAB_VALUES, decide, restore
from tests.inference.planted import rotated_volume
from tests.phantoms import ORIENTATIONS, orient


def geometry(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Geometry:
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-41.3, 7.7, 102.1)
    return Geometry(shape, affine)


def places(grid: Geometry) -> Array:
    index = np.indices(grid.shape).reshape(3, -1)
    return np.asarray((grid.affine[:3, :3] @ index + grid.affine[:3, 3:]).reshape(3, *grid.shape))


def middle(grid: Geometry) -> Array:
    return np.asarray((grid.affine @ [*((np.array(grid.shape) - 1) / 2), 1])[:3]).reshape(3, 1, 1, 1)


def sphere_logits(grid: Geometry, radius_mm: float, centre: Array) -> Array:
    inside = radius_mm - np.linalg.norm(places(grid) - centre, axis=0)
    return np.stack([np.zeros(grid.shape), inside]).astype(np.float32)


def by_the_book(logits: Array, grid: Geometry, source: Geometry) -> tuple[Array, Array]:
    """Every voxel interpolated on its own by another library, no box, no slabs."""
    matrix = np.linalg.inv(grid.affine) @ source.affine
    index = np.indices(source.shape).reshape(3, -1)
    at = matrix[:3, :3] @ index + matrix[:3, 3:]
    sampled = [ndimage.map_coordinates(c.astype(np.float64), at, order=1, mode="nearest") for c in logits]
    return np.argmax(sampled, axis=0).reshape(source.shape), np.sort(sampled, axis=0).reshape(-1, *source.shape)


def dice(a: Array, b: Array) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("spacing_mm", [(4.0, 4.0, 1.0), (1.0, 1.0, 1.0), (1.5, 1.0, 3.0)])
def test_a_sphere_comes_back_rounder_than_its_voxels(spacing_mm: tuple[float, float, float]) -> None:
    shape = tuple(round(64 / step) for step in spacing_mm)
    source = geometry(shape, spacing_mm)  # type: ignore[arg-type]
    grid = grid_like(source, (4.0, 4.0, 4.0))
    centre = middle(source) + 0.7
    truth = np.linalg.norm(places(source) - centre, axis=0) <= 20.0
    logits = sphere_logits(grid, 20.0, centre)
    index = np.round(np.linalg.inv(grid.affine) @ np.vstack([places(source).reshape(3, -1), np.ones(truth.size)]))
    nearest = logits.argmax(axis=0)[tuple(index[:3].astype(int).clip(0, 15))].reshape(truth.shape) == 1
    smooth = restore(logits, grid, source).labels == 1
    assert dice(smooth, truth) > 0.985
    assert 1 - dice(smooth, truth) < 0.5 * (1 - dice(nearest, truth))


@pytest.mark.parametrize("oblique", [False, True])
def test_box_and_slabs_lose_nothing(oblique: bool) -> None:
    """More voxels than a slab holds, decided as if each were interpolated alone."""
    if oblique:
        source = rotated_volume(30.0, sphere_hu=0.0, box_hu=0.0, size=101, step_mm=1.0).geometry
        grid = upright_grid(source, (5.0, 5.0, 5.0))
    else:
        source = geometry((108, 103, 99), (1.1, 0.9, 0.8))
        grid = grid_like(source, (4.0, 4.0, 4.0))
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 1, (3, *grid.shape)).astype(np.float32)
    logits[0, :3] += 99  # background beyond one side of the organs, organs up to all others
    assert 3 * np.prod(source.shape) > SLAB_VALUES
    expected, sampled = by_the_book(logits, grid, source)
    found = restore(logits, grid, source).labels
    clear = sampled[-1] - sampled[-2] > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_nothing_found_is_an_empty_mask() -> None:
    source = geometry((10, 9, 8), (1.0, 1.0, 1.0))
    grid = grid_like(source, (4.0, 4.0, 4.0))
    logits = np.zeros((3, *grid.shape), np.float32)
    result = restore(logits, grid, source)
    assert result.labels.shape == source.shape
    assert not result.labels.any()
    assert not result.confidence.any()


def test_organs_beside_the_turned_scan_are_not_of_it() -> None:
    """The upright grid around a turned scan has corners that the scan does not reach."""
    source = rotated_volume(30.0, sphere_hu=0.0, box_hu=0.0, size=12).geometry
    grid = upright_grid(source, (4.0, 4.0, 4.0))
    logits = np.zeros((2, *grid.shape), np.float32)
    logits[1] = -5
    logits[1, 0, 0, 0] = 5
    assert not restore(logits, grid, source).labels.any()


def test_a_box_that_no_voxel_meets_is_skipped() -> None:
    source = geometry((5, 5, 5), (1.0, 1.0, 1.0))
    far = Geometry((4, 4, 4), source.affine @ np.array([[1, 0, 0, 90], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    logits = np.stack([np.zeros(far.shape), np.ones(far.shape)]).astype(np.float32)
    assert not restore(logits, far, source).labels.any()


@pytest.mark.parametrize("step_mm", [0.5, 1.0, 3.0])
def test_an_organ_up_to_the_edge_of_the_scan_reaches_it(step_mm: float) -> None:
    source = geometry((11, 12, round(32 / step_mm)), (2.0, 3.0, step_mm))
    grid = grid_like(source, (4.0, 4.0, 4.0))
    logits = np.stack([np.zeros(grid.shape), np.ones(grid.shape)]).astype(np.float32)
    assert restore(logits, grid, source).labels.all()


def test_ties_fall_alike_in_all_48_orientations() -> None:
    """Logits that meet exactly halfway between voxels, and origins that do not add up in floating point."""
    source = Geometry((7, 5, 7), np.diag([0.7, 1.1, 1.3, 1.0]) + np.outer([0.1, 0.2, 0.3, 0], [0, 0, 0, 1]))
    grid = grid_like(source, (1.4, 2.2, 2.6))
    board = (np.indices(grid.shape).sum(axis=0) % 2 * 2 - 1).astype(np.float32)
    logits = np.stack([board * 0, board, -board])
    volume = Volume(np.zeros(source.shape, np.float32), source)
    reference = restore(logits, grid, source).labels
    for orientation in ORIENTATIONS:
        turned = orient(volume, orientation)
        again = grid_like(turned.geometry.canonical(), (1.4, 2.2, 2.6))
        expected = orient(Volume(reference, source), orientation).hu
        np.testing.assert_array_equal(restore(logits, again, turned.geometry).labels, expected, err_msg=orientation)


def test_memory_does_not_grow_with_classes_times_scan() -> None:
    source = geometry((256, 256, 96), (1.0, 1.0, 1.0))
    grid = grid_like(source, (8.0, 8.0, 8.0))
    logits = np.zeros((6, *grid.shape), np.float32)
    logits[1:] = np.random.default_rng(0).normal(0, 1, logits[1:].shape)
    everything = 4 * 6 * int(np.prod(source.shape))
    tracemalloc.start()
    restore(logits, grid, source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.7 * everything


def test_decide_takes_the_largest_and_says_how_sure_it_is() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.3], [0.1, 0.1, 0.6]], np.float32))
    label, confidence = decide(logits)
    np.testing.assert_array_equal(label, [0, 1, 2])
    np.testing.assert_array_equal(confidence, [0, round(0.7 * 255), round(0.6 * 255)])
    assert label.dtype == confidence.dtype == np.uint8


def test_decide_survives_logits_of_any_size() -> None:
    label, confidence = decide(np.array([[-1e30, 1e4], [3e4, 1e4], [-3e4, 1e4]], np.float32))
    np.testing.assert_array_equal(label, [1, 0])
    np.testing.assert_array_equal(confidence, [255, 0])
