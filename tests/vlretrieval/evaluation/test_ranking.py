"""The evaluator against answers that are known: by hand, and by going through every order of tied items."""

from __future__ import annotations

from itertools import pairwise, permutations
from math import comb
from typing import Any

import numpy as np
import pytest

from medseg.errors import DataError
from vlretrieval.evaluation.ranking import QueryScores, auroc, score_queries


def judge(scores: list[float], relevant: list[int], **options: Any) -> QueryScores:
    return score_queries(np.array([scores], float), np.array([relevant], bool), ks=(1, 2, 5), **options)


def test_a_ranking_by_hand() -> None:
    found = judge([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1])
    assert found.hits.tolist() == [[0, 1, 1]]
    assert found.first_rank[0] == 2
    assert found.average_precision[0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found.ndcg[0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3)))
    assert found.pool[0] == 4


def test_chance_is_the_hypergeometric_figure() -> None:
    found = judge([0.1] * 10, [1, 1, 1] + [0] * 7)
    assert found.chance[0].tolist() == pytest.approx([1 - comb(10 - 3, k) / comb(10, k) for k in (1, 2, 5)])


def test_one_score_for_everything_is_chance_and_not_a_lucky_order() -> None:
    found = judge([0.5] * 6, [1, 1, 0, 0, 0, 0])
    assert found.hits[0].tolist() == pytest.approx(found.chance[0].tolist())
    assert found.first_rank[0] == pytest.approx(7 / 3)


@pytest.mark.parametrize("seed", range(8))
def test_ties_are_the_mean_over_all_their_orders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, relevant = rng.integers(0, 3, 6).astype(float), rng.random(6) < 0.5
    relevant[0] = True
    orders = [order for order in permutations(range(6)) if all(scores[a] >= scores[b] for a, b in pairwise(order))]
    found = judge(scores.tolist(), relevant.astype(int).tolist())
    ranked = [relevant[list(order)] for order in orders]
    assert found.hits[0].tolist() == pytest.approx([np.mean([r[:k].any() for r in ranked]) for k in (1, 2, 5)])
    assert found.first_rank[0] == pytest.approx(np.mean([r.argmax() + 1 for r in ranked]))
    precision = [np.mean([r[: n + 1].mean() for n in range(6) if r[n]]) for r in ranked]
    assert found.average_precision[0] == pytest.approx(np.mean(precision))
    gain = [sum(r[n] / np.log2(n + 2) for n in range(6)) for r in ranked]
    ideal = sum(1 / np.log2(n + 2) for n in range(int(relevant.sum())))
    assert found.ndcg[0] == pytest.approx(np.mean(gain) / ideal)


def test_what_is_taken_out_of_the_pool_is_no_hit() -> None:
    """The query itself stands first; without it the right answer is second of two."""
    found = judge([1.0, 0.9, 0.8], [1, 0, 1], ignore=np.array([[True, False, False]]))
    assert found.hits[0, 0] == 0
    assert found.first_rank[0] == 2
    assert found.pool[0] == 2


def test_a_query_without_answers_is_left_out_and_not_a_zero() -> None:
    scores = score_queries(np.eye(2), np.array([[True, False], [False, False]]), ks=(1,))
    assert scores.answerable.tolist() == [True, False]
    assert np.isnan(scores.hits[1, 0])


def test_graded_gains_order_what_plain_answers_do_not() -> None:
    gains = np.array([[1.0, 0.5, 0.0]])
    best = score_queries(np.array([[3.0, 2, 1]]), gains > 0, gains=gains, ks=(1,))
    worse = score_queries(np.array([[2.0, 3, 1]]), gains > 0, gains=gains, ks=(1,))
    assert best.ndcg[0] == pytest.approx(1)
    assert worse.ndcg[0] < 1


def test_tables_that_do_not_fit_and_scores_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="different shapes"):
        score_queries(np.zeros((2, 3)), np.zeros((2, 2), bool))
    with pytest.raises(DataError, match="not finite"):
        judge([np.nan, 1], [1, 0])


def test_auroc_counts_ties_half_and_is_nothing_for_one_class() -> None:
    assert auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
    assert auroc(np.zeros(4), np.array([True, False, True, False])) == 0.5
    assert np.isnan(auroc(np.zeros(2), np.array([True, True])))
