"""Means, spread and bootstrap intervals over rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medseg.evaluation import Figures, OrganScore, Outcome, Scorecard, Settings


def row(case: str, organ: str, dice: float, hd95_mm: float | None = 4.0) -> OrganScore:
    outcome = Outcome.MISS if hd95_mm is None else Outcome.SCORED
    figures = Figures(outcome, dice, dice, hd95_mm, hd95_mm or 300.0, 10.0, 10 * dice)
    return OrganScore(case, organ, figures, figures, 5.0)


def card(rows: list[OrganScore]) -> Scorecard:
    cases = tuple(dict.fromkeys(row.case for row in rows))
    organs = tuple(dict.fromkeys(row.organ for row in rows))
    return Scorecard(tuple(rows), organs, cases, Settings())


def test_spread_of_known_values() -> None:
    values = [0.0, 0.2, 0.4, 0.9]
    rows = [row(f"p{i}", "a", value, None if value == 0 else 10 * i) for i, value in enumerate(values)]
    organ = card(rows).summary["organs"]["a"]
    assert organ["dice"] | {"ci95": None} == {
        "n": 4,
        "mean": pytest.approx(0.375),
        "median": pytest.approx(0.3),
        "sd": pytest.approx(np.std(values, ddof=1), abs=1e-6),
        "p5": pytest.approx(0.03),
        "p95": pytest.approx(0.825),
        "ci95": None,
    }
    assert (organ["hd95_mm"]["n"], organ["hd95_mm"]["mean"], organ["hd95_mm"]["misses"]) == (3, 20.0, 1)
    assert organ["hd95_penalised_mm"]["mean"] == pytest.approx((300 + 10 + 20 + 30) / 4)
    assert organ["volume_error_ml"] == {"mean": pytest.approx(-6.25), "mean_absolute": pytest.approx(6.25)}


def test_interval_agrees_with_the_normal_one_and_is_the_same_each_time() -> None:
    values = np.random.default_rng(5).uniform(0.4, 0.9, 60)
    rows = [row(f"p{i}", "a", value) for i, value in enumerate(values)]
    low, high = card(rows).summary["organs"]["a"]["dice"]["ci95"]
    half = 1.96 * values.std(ddof=1) / np.sqrt(60)
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)
    assert card(rows).summary["organs"]["a"]["dice"]["ci95"] == [low, high]


def test_patients_are_drawn_whole() -> None:
    """Two organs that err together: the overall interval is as wide as each organ's, not narrower by √2."""
    values = np.random.default_rng(6).uniform(0.4, 0.9, 40)
    rows = [row(f"p{i}", organ, value) for i, value in enumerate(values) for organ in "ab"]
    summary = card(rows).summary
    assert summary["overall"]["dice"]["ci95"] == pytest.approx(summary["organs"]["a"]["dice"]["ci95"], abs=1e-6)


def test_patients_are_drawn_with_all_their_scans() -> None:
    """Each of twelve patients scanned five times alike: the interval of one scan each, not narrower by √5."""
    values = np.random.default_rng(7).uniform(0.4, 0.9, 12)
    once = card([row(f"p{i}", "a", value) for i, value in enumerate(values)])
    rows = [row(f"p{i}s{n}", "a", value) for i, value in enumerate(values) for n in range(5)]
    often = replace(card(rows), patients=tuple(each.case.split("s")[0] for each in rows))
    assert often.summary["organs"]["a"]["dice"]["ci95"] == once.summary["organs"]["a"]["dice"]["ci95"]
    assert often.summary["overall"]["dice"] == once.summary["overall"]["dice"]
    assert (often.to_dict()["cases"], often.to_dict()["bootstrap"]["patients"]) == (60, 12)


def test_scans_of_one_patient_have_no_interval() -> None:
    one = replace(card([row(f"s{n}", "a", n / 10) for n in range(5)]), patients=("p",) * 5)
    assert one.summary["organs"]["a"]["dice"]["ci95"] is None
    assert one.summary["overall"]["dice"] == {"mean": 0.2, "ci95": None}


def test_organ_of_a_single_patient_does_not_break_the_overall_interval() -> None:
    rows = [row(f"p{i}", "a", 0.5 + i / 10) for i in range(4)] + [row("p0", "b", 0.9)]
    summary = card(rows).summary
    assert summary["organs"]["b"]["dice"]["ci95"] is None
    assert summary["organs"]["b"]["unknown"] == 3
    low, high = summary["overall"]["dice"]["ci95"]
    assert 0.5 <= low < summary["overall"]["dice"]["mean"] < high <= 0.9


def test_single_case_has_no_interval() -> None:
    assert card([row("p0", "a", 0.7)]).summary["overall"]["dice"] == {"mean": 0.7, "ci95": None}
