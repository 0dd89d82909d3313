"""Calibration: sure and right are counted where they can be judged, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.calibration import BINS, Calibration


def test_a_model_that_is_as_right_as_it_is_sure_has_no_error() -> None:
    labels = np.ones(1000, np.uint8)
    sure = np.full(1000, 0.8 * 255, np.uint8)
    reference = (np.arange(1000) % 10 < 8).astype(np.uint8)  # 80 % are right
    found = Calibration().seen(labels, sure, reference, [1])
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.voxels[8] == 1000


def test_a_model_that_is_surer_than_right_is_off_by_the_difference() -> None:
    labels, sure = np.full(400, 2, np.uint8), np.full(400, 255, np.uint8)
    reference = np.repeat([2, 0], 200).astype(np.uint8)
    found = Calibration().seen(labels, sure, reference, [1, 2])
    assert found.error == pytest.approx(0.5)
    assert found.to_json()["right"][BINS - 1] == 200


def test_background_and_what_was_not_contoured_are_not_judged() -> None:
    labels = np.array([0, 1, 2, 2], np.uint8)
    found = Calibration().seen(labels, np.full(4, 255, np.uint8), np.zeros(4, np.uint8), [1])
    assert found.voxels.sum() == 1
    assert Calibration().error is None
    assert (
        Calibration().seen(labels, np.full(4, 255, np.uint8), labels, []).to_json()["expected_calibration_error"]
        is None
    )


def test_cases_add_up() -> None:
    rng = np.random.default_rng(0)
    labels, reference = rng.integers(0, 3, (2, 500)).astype(np.uint8)
    sure = rng.integers(0, 256, 500).astype(np.uint8)
    whole = Calibration().seen(labels, sure, reference, [1, 2])
    halves = Calibration()
    for part in (slice(0, 200), slice(200, None)):
        halves = halves.seen(labels[part], sure[part], reference[part], [1, 2])
    np.testing.assert_allclose(halves.sure, whole.sure)
    assert halves.error == pytest.approx(whole.error)
