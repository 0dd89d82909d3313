"""Artificial bodies and couches: plausible HU, and a patient who is never touched."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.training.artificial import add_couch, artificial_body
from tests.phantoms import phantom_volume

SHAPE = (40, 32, 24)


@pytest.mark.parametrize("seed", range(6))
def test_a_body_is_tissue_in_air(seed: int) -> None:
    hu = artificial_body(SHAPE, np.random.default_rng(seed))
    assert hu.shape == SHAPE
    assert hu.dtype == np.float32
    assert hu.min() > -1200
    assert hu.max() < 1700
    assert ((hu > -200) & (hu < 200)).mean() > 0.1
    assert (hu > 350).any()  # bone


def test_bodies_are_decided_by_the_generator() -> None:
    first, again, other = (artificial_body(SHAPE, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def patient() -> np.ndarray:
    return phantom_volume((40, 40, 20), (5, 5, 8)).hu


def test_a_couch_never_touches_the_patient() -> None:
    hu = patient()
    added = 0
    for seed in range(40):
        out = add_couch(hu, np.random.default_rng(seed))
        np.testing.assert_array_equal(out[hu > -400], hu[hu > -400])
        added += bool((out != hu).any())
    assert added > 30


def test_a_couch_lies_behind_the_patient() -> None:
    hu = patient()
    middle = np.argwhere(hu > -400)[:, 1].mean()
    places = [np.argwhere(add_couch(hu, np.random.default_rng(seed)) != hu)[:, 1] for seed in range(20)]
    assert np.mean(np.concatenate(places)) < middle


def test_the_scan_itself_is_not_changed() -> None:
    hu = patient()
    before = hu.copy()
    add_couch(hu, np.random.default_rng(0))
    np.testing.assert_array_equal(hu, before)


def test_a_patch_of_air_may_hold_a_couch() -> None:
    air = np.full(SHAPE, -1000, np.float32)
    assert any((add_couch(air, np.random.default_rng(seed)) != air).any() for seed in range(5))
