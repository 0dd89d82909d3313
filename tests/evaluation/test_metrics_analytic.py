"""Scores of shapes whose scores can be written down, and HD95 against scipy's distance transforms."""

from __future__ import annotations

import itertools
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medseg.evaluation import EmptyPolicy, Figures, Outcome, evaluate_arrays
from medseg.evaluation.metrics import measure
from medseg.imaging.volume import Geometry

SPACING_MM = (2.0, 1.5, 3.0)


def compare(prediction: Any, reference: Any, spacing_mm: Any = SPACING_MM, tolerance_mm: float = 5.0) -> Figures:
    geometry = Geometry(reference.shape, np.diag([*spacing_mm, 1.0]))
    return measure(prediction, reference, geometry, tolerance_mm, EmptyPolicy())


def box(shape: Any, *spans: tuple[int, int]) -> Any:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


def ball(shape: Any, centre: Any, radius_mm: float, spacing_mm: Any) -> Any:
    grid = np.indices(shape).reshape(3, -1).T
    return (np.linalg.norm((grid - centre) * spacing_mm, axis=1) <= radius_mm).reshape(shape)


def test_equal_masks_are_perfect() -> None:
    mask = box((20, 20, 20), (5, 12), (6, 14), (4, 9))
    figures = compare(mask, mask)
    assert (figures.outcome, figures.dice, figures.surface_dice, figures.hd95_mm) == (Outcome.SCORED, 1.0, 1.0, 0.0)
    assert figures.reference_ml == pytest.approx(7 * 8 * 5 * 9 / 1000)
    assert figures.volume_error_ml == 0


@pytest.mark.parametrize(("axis", "shift", "distance_mm"), [(0, 3, 6.0), (1, 2, 3.0), (2, 1, 3.0)])
def test_shifted_box(axis: int, shift: int, distance_mm: float) -> None:
    """A box of 8 voxels shifted by s: Dice (8 - s) / 8, the leading face s·spacing away."""
    reference = box((24, 24, 24), (8, 16), (8, 16), (8, 16))
    figures = compare(np.roll(reference, shift, axis), reference)
    assert figures.dice == pytest.approx((8 - shift) / 8)
    assert figures.hd95_mm == pytest.approx(distance_mm)


def test_tolerance_includes_its_own_distance() -> None:
    """Two voxels of 2.5 mm are within 5 mm, and a hair less than 5 mm tolerance is not enough for the end faces."""
    reference = box((40, 20, 20), (10, 20), (5, 15), (5, 15))
    moved = np.roll(reference, 2, 0)
    assert compare(moved, reference, (2.5, 2.5, 2.5), 5.0).surface_dice == pytest.approx(1.0)
    assert compare(moved, reference, (2.5, 2.5, 2.5), 4.9).surface_dice < 0.9


@pytest.mark.parametrize(("tolerance_mm", "share"), [(3.9, 0.0), (4.0, 0.5), (5.9, 0.5), (6.0, 1.0)])
def test_surface_dice_of_two_parallel_plates(tolerance_mm: float, share: float) -> None:
    """Plates of one 2 mm voxel, 6 mm apart: their near faces are 4 mm from the other plate, their far faces 6 mm."""
    shape = (40, 40, 12)
    lower, upper = box(shape, (0, 40), (0, 40), (3, 4)), box(shape, (0, 40), (0, 40), (6, 7))
    figures = compare(upper, lower, (2.0, 2.0, 2.0), tolerance_mm)
    assert figures.surface_dice == pytest.approx(share, abs=1e-6)
    assert figures.hd95_mm == pytest.approx(6.0)


def test_concentric_balls() -> None:
    """Radii 12 and 18 mm: Dice 2·12³ / (12³ + 18³), every surface point 6 mm from the other."""
    spacing = (1.0, 1.2, 1.5)
    shape, centre = (42, 36, 30), (20.5, 17.5, 14.5)
    small, large = ball(shape, centre, 12.0, spacing), ball(shape, centre, 18.0, spacing)
    figures = compare(small, large, spacing, 7.5)
    assert figures.dice == pytest.approx(2 * 12**3 / (12**3 + 18**3), abs=0.01)
    assert figures.hd95_mm == pytest.approx(6.0, abs=0.8)
    assert figures.surface_dice == pytest.approx(1.0)
    assert compare(small, large, spacing, 4.0).surface_dice == pytest.approx(0.0, abs=0.01)
    assert figures.volume_error_percent == pytest.approx(100 * ((12 / 18) ** 3 - 1), abs=1.0)


def test_spacing_is_what_is_measured_in() -> None:
    reference = box((20, 20, 20), (5, 10), (5, 10), (5, 10))
    moved = np.roll(reference, 4, 2)
    assert compare(moved, reference, (1.0, 1.0, 1.0)).hd95_mm == pytest.approx(4.0)
    assert compare(moved, reference, (1.0, 1.0, 5.0)).hd95_mm == pytest.approx(20.0)


def test_mask_at_the_edge_of_the_array_has_a_surface_there() -> None:
    reference = box((10, 10, 10), (0, 10), (0, 10), (0, 10))
    shorter = box((10, 10, 10), (0, 10), (0, 10), (0, 6))
    figures = compare(shorter, reference, (1.0, 1.0, 1.0), 1.0)
    assert figures.hd95_mm == pytest.approx(_scipy_hd95(shorter, reference, (1.0, 1.0, 1.0)), abs=1e-4)
    assert figures.surface_dice < 0.9


def _scipy_hd95(prediction: Any, reference: Any, spacing_mm: Any) -> float:
    def surface(mask: Any) -> Any:
        return mask & ~ndimage.binary_erosion(mask)

    def directed(source: Any, target: Any) -> float:
        distance = ndimage.distance_transform_edt(~surface(target), sampling=spacing_mm)
        return float(np.percentile(distance[surface(source)], 95))

    return max(directed(prediction, reference), directed(reference, prediction))


@pytest.mark.parametrize("seed", range(6))
def test_hd95_agrees_with_distance_transforms(seed: int) -> None:
    random = np.random.default_rng(seed)
    spacing = tuple(random.uniform(0.7, 4.0, 3))
    masks = [ndimage.gaussian_filter(random.standard_normal((26, 22, 18)), 2) > 0.08 for _ in range(2)]
    figures = compare(masks[0], masks[1], spacing)
    assert figures.hd95_mm == pytest.approx(_scipy_hd95(masks[0], masks[1], spacing), rel=1e-4)
    overlap = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
    assert figures.dice == pytest.approx(overlap, rel=1e-6)


def test_every_axis_order_and_direction_gives_the_same_scores() -> None:
    """48 orientations of one anisotropic pair, scored within its contoured slices too."""
    from medseg.evaluation import Settings

    random = np.random.default_rng(3)
    reference = np.zeros((20, 18, 26), np.uint8)
    reference[6:12, 5:11, 8:18] = 1
    prediction = np.zeros_like(reference)
    prediction[7:13, 5:12, 5:24] = 1
    prediction[random.random(prediction.shape) < 0.01] = 1
    affine = np.diag([*SPACING_MM, 1.0])
    settings = Settings(within_contoured=("cord",), margin_slices=1)
    scores = set()
    for order, flips in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        ornt = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)], dtype=float)
        turned = [nib.apply_orientation(array, ornt) for array in (prediction, reference)]
        matrix = affine @ nib.orientations.inv_ornt_aff(ornt, reference.shape)
        grid = Geometry(turned[0].shape, matrix)
        (row,) = evaluate_arrays(*turned, grid, labels={"cord": 1}, settings=settings)
        pair = (row.figures, row.plain)
        scores.add(tuple(round(v, 4) for f in pair for v in (f.dice, f.surface_dice, f.hd95_mm, f.prediction_ml)))
    assert len(scores) == 1
