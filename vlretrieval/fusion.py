"""Several rankings of the same studies -> one. Knows numbers alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vlretrieval.store.memory import Ranking


def fuse(rankings: Mapping[str, Ranking], weights: Mapping[str, float], k: int) -> Ranking:
    """The k best by the weighted sum of the legs' scores, each scaled to 0 ... 1 over what the leg found.

    A study that a leg did not find has 0 there: the same as the last one that it found.
    """
    total: dict[int, float] = {}
    for name, ranking in rankings.items():
        for key, score in zip(ranking.keys.tolist(), scaled(ranking.scores), strict=True):
            total[key] = total.get(key, 0.0) + weights.get(name, 0.0) * float(score)
    keys = np.array(sorted(total), dtype=np.int64)
    scores = np.array([total[key] for key in keys.tolist()], dtype=np.float64)
    order = np.lexsort((keys, -scores))[:k]
    return Ranking(keys[order], scores[order])


def scaled(scores: np.ndarray) -> np.ndarray:
    """Scores as 0 ... 1; all 1 where they are all equal."""
    if not len(scores):
        return scores
    low, high = float(scores.min()), float(scores.max())
    return np.ones(len(scores)) if high == low else (scores - low) / (high - low)
