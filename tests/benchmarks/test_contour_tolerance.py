"""Contours that are moved: by whole voxels they are the same masks elsewhere, by parts of one they lie between."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.contour_tolerance import moved, signed_distance
from medseg.deploy.parity import dice

SPACING = np.array([3.9, 3.9, 2.5])


def ball(radius_mm: float = 14.0) -> np.ndarray:
    places = (np.indices((24, 24, 32)).T - [12, 12, 16]).T * SPACING[:, None, None, None]
    return np.asarray(np.sqrt((places**2).sum(axis=0)) < radius_mm)


@pytest.mark.parametrize("axis", range(3))
def test_whole_voxels_move_the_mask_as_it_is(axis: int) -> None:
    mask = ball()
    step = np.eye(3)[axis]
    assert np.array_equal(moved(signed_distance(mask, SPACING), 2 * step), np.roll(mask, 2, axis))


def test_the_further_the_lower_and_as_far_as_geometry_says() -> None:
    """Two balls of radius r whose middles are d apart share 1 - 3d/4r + d^3/16r^3 of one."""
    signed = signed_distance(ball(), SPACING)
    found = {}
    for shift in (0.0, 2.0, 4.0, 8.0):
        step = np.array([shift / SPACING[0], 0, 0])
        places = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 3))
        pairs = [dice(moved(signed, place), moved(signed, place + step)) for place in places]
        found[shift] = float(np.mean(pairs))
    assert found[0.0] == 1
    for shift, value in found.items():
        ratio = shift / 14.0
        assert value == pytest.approx(1 - 0.75 * ratio + ratio**3 / 16, abs=0.02)


def test_a_move_by_less_than_a_voxel_takes_more_of_a_thin_organ() -> None:
    """What the script says of itself: such a move alone changes the volume."""
    across = (np.indices((24, 24, 6)).T[..., :2] - [12, 12]) * SPACING[:2]
    tube = np.sqrt((across**2).sum(axis=-1)).T < 5.0
    places = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 3))
    kept = [
        np.mean([moved(signed_distance(mask, SPACING), place).sum() / mask.sum() for place in places])
        for mask in (tube, ball())
    ]
    assert kept[0] < 0.93 < 0.95 < kept[1] < 1
