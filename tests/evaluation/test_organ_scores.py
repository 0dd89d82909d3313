"""Empty masks, contoured windows, unknown organs and swapped sides, on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medseg.errors import ConfigError, DataError
from medseg.evaluation import EmptyPolicy, Outcome, Settings, evaluate_arrays

SPACING_MM = (2.0, 1.5, 3.0)


def score(prediction: Any, reference: Any, **options: Any) -> dict[str, Any]:
    labels = options.pop("labels", {"a": 1})
    rows = evaluate_arrays(prediction, reference, SPACING_MM, labels=labels, **options)
    return {row.organ: row for row in rows}


@pytest.fixture
def empty() -> Any:
    return np.zeros((10, 10, 20), np.uint8)


@pytest.fixture
def organ(empty: Any) -> Any:
    empty = empty.copy()
    empty[3:6, 3:6, 8:12] = 1
    return empty


def test_both_empty_is_a_true_negative_without_scores(empty: Any) -> None:
    figures = score(empty, empty)["a"].figures
    assert figures.outcome is Outcome.TRUE_NEGATIVE
    assert figures.dice is figures.surface_dice is figures.hd95_mm is figures.hd95_penalised_mm is None


def test_miss_is_zero_and_its_distance_undefined(empty: Any, organ: Any) -> None:
    figures = score(empty, organ)["a"].figures
    assert (figures.outcome, figures.dice, figures.surface_dice, figures.hd95_mm) == (Outcome.MISS, 0.0, 0.0, None)
    assert figures.hd95_penalised_mm == pytest.approx(np.hypot(np.hypot(20, 15), 60))
    assert figures.volume_error_percent == -100


def test_false_positive_is_zero_and_counted_apart(empty: Any, organ: Any) -> None:
    figures = score(organ, empty)["a"].figures
    assert (figures.outcome, figures.dice, figures.hd95_mm) == (Outcome.FALSE_POSITIVE, 0.0, None)
    assert figures.prediction_ml == pytest.approx(3 * 3 * 4 * 9 / 1000)
    assert figures.volume_error_percent is None


def test_no_prediction_at_all(empty: Any, organ: Any) -> None:
    missed = score(None, organ)["a"]
    assert missed.figures.outcome is Outcome.MISS
    assert not missed.handed_in
    assert score(None, empty)["a"].figures.outcome is Outcome.UNPREDICTED


def test_organ_that_the_prediction_cannot_name_is_a_miss(organ: Any) -> None:
    assert score(organ, organ, prediction_labels={"b": 1})["a"].figures.outcome is Outcome.MISS


def test_values_are_mapped_by_name(organ: Any) -> None:
    assert score(organ * 7, organ, prediction_labels={"a": 7})["a"].figures.dice == 1.0


def test_unknown_organs_are_not_scored(empty: Any, organ: Any) -> None:
    rows = score(organ, organ, labels={"a": 1, "b": 2}, known={"b"})
    assert list(rows) == ["b"]


def test_policy_decides_what_enters_the_mean() -> None:
    assert EmptyPolicy().in_mean(Outcome.FALSE_POSITIVE)
    assert not EmptyPolicy(false_positives_in_mean=False).in_mean(Outcome.FALSE_POSITIVE)
    assert "does not enter" in EmptyPolicy(false_positives_in_mean=False).describe()["false_positive"]
    for policy in (EmptyPolicy(), EmptyPolicy(false_positives_in_mean=False)):
        assert policy.in_mean(Outcome.MISS)
        assert not policy.in_mean(Outcome.TRUE_NEGATIVE)


@pytest.mark.parametrize(("margin", "dice"), [(0, 1.0), (1, 8 / 10), (3, 8 / 14)])
def test_window_cuts_what_the_clinic_did_not_contour(organ: Any, margin: int, dice: float) -> None:
    longer = np.zeros_like(organ)
    longer[3:6, 3:6, :] = 1
    settings = Settings(within_contoured=("a",), margin_slices=margin)
    row = score(longer, organ, settings=settings)["a"]
    assert row.figures.dice == pytest.approx(dice)
    assert row.plain.dice == pytest.approx(8 / 24)
    assert row.figures.prediction_ml == pytest.approx(9 * (4 + 2 * margin) * 9 / 1000)


def test_window_finds_the_superior_axis_in_the_affine(organ: Any) -> None:
    from medseg.imaging.volume import Geometry

    longer = np.zeros_like(organ)
    longer[3:6, 3:6, :] = 1
    turned = [array.transpose(2, 0, 1) for array in (longer, organ)]
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -3.0, 2.0, 1.5, 1.0
    grid = Geometry(turned[0].shape, affine)
    settings = Settings(within_contoured=("a",), margin_slices=1)
    (row,) = evaluate_arrays(*turned, grid, labels={"a": 1}, settings=settings)
    assert row.figures.dice == pytest.approx(8 / 10)


def test_prediction_outside_the_window_is_a_miss_inside_it(empty: Any, organ: Any) -> None:
    elsewhere = empty.copy()
    elsewhere[3:6, 3:6, 0:4] = 1
    row = score(elsewhere, organ, settings=Settings(within_contoured=("a",)))["a"]
    assert row.figures.outcome is Outcome.MISS
    assert (row.plain.outcome, row.plain.dice) == (Outcome.SCORED, 0.0)


def test_window_without_a_contour_is_the_whole_scan(empty: Any, organ: Any) -> None:
    row = score(organ, empty, settings=Settings(within_contoured=("a",)))["a"]
    assert row.figures.outcome is Outcome.FALSE_POSITIVE


def test_swapped_sides_are_found(head: Any, table: dict[str, int]) -> None:
    swapped = head.copy()
    swapped[head == 2], swapped[head == 3] = 3, 2
    assert {o for o, row in score(swapped, head, labels=table).items() if row.swapped} == set(table) - {"brainstem"}
    assert not any(row.swapped for row in score(head, head, labels=table).values())


def test_one_sided_reference_shows_a_swap_too(head: Any, table: dict[str, int]) -> None:
    swapped = head.copy()
    swapped[head == 2], swapped[head == 3] = 3, 2
    rows = score(swapped, head, labels=table, known={"parotid_gland_left"})
    assert rows["parotid_gland_left"].swapped


def test_one_side_predicted_with_the_other_name(head: Any, table: dict[str, int]) -> None:
    wrong = head.copy()
    wrong[head == 2] = 3
    rows = score(wrong, head, labels=table)
    assert rows["parotid_gland_right"].swapped
    assert not rows["parotid_gland_left"].swapped


def test_different_shapes_are_refused(organ: Any) -> None:
    with pytest.raises(DataError, match=r"Case p7.*shape"):
        evaluate_arrays(organ[:-1], organ, SPACING_MM, labels={"a": 1}, case="p7")
    with pytest.raises(DataError, match="2 dimensions"):
        evaluate_arrays(organ[0], organ[0], SPACING_MM, labels={"a": 1})


@pytest.mark.parametrize("tolerance", [0, -1.0, float("nan"), {"a": float("inf")}])
def test_senseless_tolerances_are_refused(tolerance: Any) -> None:
    with pytest.raises(ConfigError, match="tolerance"):
        Settings(tolerance)


def test_tolerance_per_organ() -> None:
    settings = Settings({"a": 2.0})
    assert (settings.tolerance_of("a"), settings.tolerance_of("b")) == (2.0, 5.0)


def test_negative_margin_is_refused() -> None:
    with pytest.raises(ConfigError, match="margin_slices"):
        Settings(margin_slices=-1)
