from __future__ import annotations

import numpy as np
import pytest

from vlretrieval.evaluation.statistics import bootstrap, compare_paired


def test_patients_are_drawn_whole() -> None:
    """A hundred copies of one patient's answer are one witness: the interval stays as wide as that of two patients."""
    values = np.array([0.0] * 100 + [1.0] * 100)
    by_patient = bootstrap(values, ["a"] * 100 + ["b"] * 100, draws=300)
    by_query = bootstrap(values, range(200), draws=300)
    assert (by_patient.low, by_patient.high) == (0, 1)
    assert by_query.high - by_query.low < 0.2
    assert by_patient.value == by_query.value == 0.5
    assert str(by_patient) == "0.500 (0.000-1.000)"
    assert by_patient.to_json() == [0.5, 0.0, 1.0]


def test_what_cannot_be_judged_does_not_count() -> None:
    assert bootstrap(np.array([1.0, np.nan]), ["a", "b"], draws=50).value == 1


def test_paired_seeds() -> None:
    found = compare_paired([0.4, 0.5, 0.6, 0.5, 0.5], [0.5, 0.6, 0.7, 0.6, 0.61])
    assert found.relative == pytest.approx(0.102 / 0.5)
    assert found.p == pytest.approx(1 / 16)
    assert 0.09 < found.low < 0.102 < found.high < 0.12
    assert found.to_json()["before"] == 0.5
    assert compare_paired([0.5, 0.4, 0.6], [0.4, 0.5, 0.6]).p == 1
