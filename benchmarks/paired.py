"""Two ways of training compared over the same patients and seeds: means, spread over seeds, bootstrap over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.evaluation import evaluate

Scores = Mapping[str, Mapping[str, float]]
"""Patient -> organ -> Dice."""
DRAWS = 5000


def mean_dice(scores: Scores, organs: Sequence[str], patients: Sequence[str] | None = None) -> float:
    """Mean over patients of each organ, then over organs: a seldom contoured one counts alike."""
    chosen = list(scores) if patients is None else patients
    means = []
    for organ in organs:
        values = [scores[patient][organ] for patient in chosen if organ in scores[patient]]
        if values:
            means.append(float(np.mean(values)))
    return float(np.mean(means)) if means else float("nan")


def compare(ours: Sequence[Scores], theirs: Sequence[Scores], organs: Sequence[str]) -> dict[str, Any]:
    """Difference of mean Dice (ours - theirs), seeds averaged, with a 95 % interval over patients.

    Raises:
        ValueError: the two were not scored on the same patients.
    """
    patients = sorted(ours[0])
    if any(sorted(each) != patients for each in (*ours, *theirs)):
        raise ValueError("both sides must be scored on the same patients")
    a, b = _table(ours, organs, patients), _table(theirs, organs, patients)
    rng = np.random.default_rng(0)
    draws = [_gap(a[rows], b[rows]) for rows in rng.integers(len(patients), size=(DRAWS, len(patients)))]
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return {
        "patients": len(patients),
        "ours": _spread([mean_dice(each, organs) for each in ours]),
        "theirs": _spread([mean_dice(each, organs) for each in theirs]),
        "difference": round(_gap(a, b), 4),
        "interval_95": [round(float(low), 4), round(float(high), 4)],
        "organs": {organ: round(_gap(a[:, [n]], b[:, [n]]), 4) for n, organ in enumerate(organs)},
    }


def _table(seeds: Sequence[Scores], organs: Sequence[str], patients: Sequence[str]) -> Any:
    """[patients, organs], mean over seeds; NaN where an organ was not contoured."""
    rows = [[[each[p].get(o, np.nan) for o in organs] for p in patients] for each in seeds]
    return np.asarray(rows, dtype=float).mean(axis=0)


def _gap(a: Any, b: Any) -> float:
    there = ~np.isnan(a)
    counts = there.sum(axis=0)
    sums = np.where(there, a - b, 0.0).sum(axis=0)
    return float((sums[counts > 0] / counts[counts > 0]).mean()) if (counts > 0).any() else float("nan")


def _spread(values: Sequence[float]) -> dict[str, Any]:
    rounded = [round(value, 4) for value in values]
    return {"seeds": rounded, "mean": round(float(np.mean(values)), 4), "sd": round(float(np.std(values)), 4)}


def score(predictions: Path, references: Path, index: Path, organs: Sequence[str]) -> dict[str, dict[str, float]]:
    """Dice of every patient's contoured organs by `medseg evaluate`; an organ that was missed counts 0."""
    card = evaluate(predictions, references, None, index=index, organs=list(organs))
    found: dict[str, dict[str, float]] = {}
    for row in card.rows:
        if row.figures.dice is not None:
            found.setdefault(row.case, {})[row.organ] = float(row.figures.dice)
    return found
