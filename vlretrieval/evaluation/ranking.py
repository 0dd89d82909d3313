"""How good is a ranking? Per query, with ties, doubles and several right answers treated as what they are.

Scores that are equal are in no order: every figure is its mean over all orders of the tied
items, in closed form. So a model that gives every item one score gets chance, and not the
figure of whatever order a sort happened to leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.errors import DataError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class QueryScores:
    """One number per query; NaN for a query that has no right answer in its pool.

    Attributes:
        hits: [Q, K] probability that at least one right answer is among the first k.
        first_rank: [Q] rank of the first right answer, 1 is best.
        average_precision: [Q].
        ndcg: [Q] at `ndcg_at`, with graded gains where they were given.
        chance: [Q, K] what `hits` would be in random order.
        pool: [Q] number of items that were ranked.
    """

    ks: tuple[int, ...]
    ndcg_at: int
    hits: Array
    first_rank: Array
    average_precision: Array
    ndcg: Array
    chance: Array
    pool: Array

    @property
    def answerable(self) -> Mask:
        """Queries that have a right answer in their pool."""
        return np.isfinite(self.first_rank)


def score_queries(
    scores: Array,
    relevant: Mask,
    *,
    ignore: Mask | None = None,
    gains: Array | None = None,
    ks: tuple[int, ...] = (1, 5, 10, 50),
    ndcg_at: int = 10,
) -> QueryScores:
    """Judge rankings.

    Args:
        scores: [Q, N] similarity of every query to every item, higher is nearer.
        relevant: [Q, N] which items answer which query; several may, and identical texts all do.
        ignore: [Q, N] items that are taken out of a query's pool: the query itself, studies of its patient.
        gains: [Q, N] graded relevance for nDCG; `relevant` as 0 and 1 if not given.
        ks: the k of recall@k.
        ndcg_at: depth of nDCG.

    Raises:
        DataError: shapes differ, or a score is not finite.
    """
    ignore = np.zeros(scores.shape, dtype=bool) if ignore is None else ignore
    gains = relevant.astype(np.float64) if gains is None else gains
    if not (scores.shape == relevant.shape == ignore.shape == gains.shape):
        raise DataError("Scores, answers and gains are tables of different shapes.")
    if not np.isfinite(scores[~ignore]).all():
        raise DataError("A score is not finite.", advice="Embeddings hold NaN or infinity: make them again.")
    rows = [
        _query(s[~i], r[~i], g[~i], ks, ndcg_at) for s, r, g, i in zip(scores, relevant, gains, ignore, strict=True)
    ]
    hits, first, precision, ndcg, chance, pool = zip(*rows, strict=True) if rows else ((),) * 6
    wide = (len(rows), len(ks))
    return QueryScores(
        ks,
        ndcg_at,
        np.array(hits, float).reshape(wide),
        np.array(first, float),
        np.array(precision, float),
        np.array(ndcg, float),
        np.array(chance, float).reshape(wide),
        np.array(pool, float),
    )


_Row = tuple[list[float], float, float, float, list[float], int]


def _query(scores: Array, relevant: Mask, gains: Array, ks: tuple[int, ...], ndcg_at: int) -> _Row:
    total, pool = int(relevant.sum()), len(scores)
    if not total:
        return [np.nan] * len(ks), np.nan, np.nan, np.nan, [np.nan] * len(ks), pool
    groups = _tied_groups(scores, relevant)
    chance = [1 - _none_drawn(pool, total, min(k, pool)) for k in ks]
    return (
        [_hit(groups, k) for k in ks],
        _first_rank(groups),
        _average_precision(groups, total),
        _ndcg(scores, gains, ndcg_at),
        chance,
        pool,
    )


def _tied_groups(scores: Array, relevant: Mask) -> list[tuple[int, int]]:
    """(items, right answers among them) of each group of equal scores, best group first."""
    _, group = np.unique(-scores, return_inverse=True)
    sizes = np.bincount(group)
    rights = np.bincount(group, weights=relevant).astype(int)
    return list(zip(sizes.tolist(), rights.tolist(), strict=True))


def _none_drawn(items: int, rights: int, draws: int) -> float:
    """Probability that `draws` of `items` hold none of the `rights`."""
    wrong = items - rights
    if draws > wrong:
        return 0.0
    steps = np.arange(draws)
    return float(np.prod((wrong - steps) / (items - steps)))


def _hit(groups: list[tuple[int, int]], k: int) -> float:
    before = 0
    for items, rights in groups:
        if rights:
            room = min(items, k - before)
            return 1 - _none_drawn(items, rights, room) if room > 0 else 0.0
        before += items
    return 0.0


def _first_rank(groups: list[tuple[int, int]]) -> float:
    before = 0
    for items, rights in groups:
        if rights:
            return before + (items + 1) / (rights + 1)
        before += items
    return float("nan")


def _average_precision(groups: list[tuple[int, int]], total: int) -> float:
    """Its mean over all orders of tied items (McSherry & Najork, 2008)."""
    precision, before, found = 0.0, 0, 0
    for items, rights in groups:
        if rights:
            place = np.arange(1, items + 1)
            earlier = (place - 1) * (rights - 1) / (items - 1) if items > 1 else np.zeros(1)
            precision += rights / items * float(((found + earlier + 1) / (before + place)).sum())
        before, found = before + items, found + rights
    return precision / total


def _ndcg(scores: Array, gains: Array, depth: int) -> float:
    """Tied items share their places' discounts evenly."""
    best = np.sort(gains)[::-1]
    discount = np.zeros(len(gains))
    discount[:depth] = 1 / np.log2(np.arange(2, min(depth, len(gains)) + 2))
    ideal = float((best * discount).sum())
    if ideal == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    _, group = np.unique(-scores[order], return_inverse=True)
    shared = np.bincount(group, weights=discount) / np.bincount(group)
    return float((gains[order] * shared[group]).sum()) / ideal


def auroc(scores: Array, positive: Mask) -> float:
    """Area under the ROC curve, ties counted half; NaN where one of the classes is empty."""
    from scipy.stats import rankdata

    rights = int(positive.sum())
    wrongs = len(positive) - rights
    if not rights or not wrongs:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - rights * (rights + 1) / 2) / (rights * wrongs))
