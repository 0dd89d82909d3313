"""Two models compared over the same patients: means, spread over seeds, bootstrap over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from medseg.errors import DataError
from medseg.evaluation.run import evaluate
from medseg.evaluation.scorecard import Scorecard

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
    """Difference of mean Dice (ours - theirs), seeds averaged, with 95 % intervals over patients.

    Args:
        ours, theirs: scores, one for each seed.
        organs: the mean is that of their means.

    Raises:
        DataError: the two were not scored on the same patients.
    """
    patients = sorted(ours[0])
    if any(sorted(each) != patients for each in (*ours, *theirs)):
        raise DataError("Both sides must be scored on the same patients, and every seed, too.")
    a, b = _table(ours, organs, patients), _table(theirs, organs, patients)
    drawn = np.random.default_rng(0).integers(len(patients), size=(DRAWS, len(patients)))
    return {
        "patients": len(patients),
        "ours": _spread([mean_dice(each, organs) for each in ours]),
        "theirs": _spread([mean_dice(each, organs) for each in theirs]),
        **_difference(a, b, drawn),
        "organs": {organ: _difference(a[:, [n]], b[:, [n]], drawn) for n, organ in enumerate(organs)},
    }


def _difference(a: Any, b: Any, drawn: Any) -> dict[str, Any]:
    """Of the patients as they are, and of those that were `drawn` anew."""
    draws = np.array([_gap(a[rows], b[rows]) for rows in drawn])
    draws = draws[~np.isnan(draws)]
    interval = [round(float(limit), 4) for limit in np.percentile(draws, (2.5, 97.5))] if len(draws) else None
    return {"difference": _rounded(_gap(a, b)), "interval_95": interval}


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


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
    return scores_of(evaluate(predictions, references, None, index=index, organs=list(organs)))


def scores_of(card: Scorecard) -> dict[str, dict[str, float]]:
    """Patient -> organ -> Dice, where it is defined."""
    found: dict[str, dict[str, float]] = {}
    for row in card.rows:
        if row.figures.dice is not None:
            found.setdefault(row.case, {})[row.organ] = float(row.figures.dice)
    return found


def compare_cards(ours: Sequence[Scorecard], theirs: Sequence[Scorecard]) -> dict[str, Any]:
    """As `compare`, from scorecards, one for each seed; organs are those of the first.

    Raises:
        DataError: the two were not scored on the same patients.
    """
    return compare([scores_of(card) for card in ours], [scores_of(card) for card in theirs], ours[0].organs)


def comparison_table(found: Mapping[str, Any]) -> Table:
    """What `compare` found, for the terminal: a row per organ, the mean of organs last."""
    table = Table(title=f"Dice against the other model, {found['patients']} patients", box=SIMPLE_HEAD)
    table.add_column("organ")
    for name in ("difference", "95 % CI"):
        table.add_column(name, justify="right", no_wrap=True)
    for organ, row in found["organs"].items():
        table.add_row(organ.replace("_", " "), *_cells(row))
    table.add_section()
    table.add_row("mean of organs", *_cells(found))
    sides = {"this one": found["ours"], "the other": found["theirs"]}
    table.caption = "; ".join(
        f"{name} {side['mean']:.3f} (SD over {len(side['seeds'])} seeds {side['sd']:.3f})"
        if len(side["seeds"]) > 1
        else f"{name} {side['mean']:.3f}"
        for name, side in sides.items()
    )
    return table


def _cells(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["interval_95"] is None:
        return "", ""
    low, high = row["interval_95"]
    return f"{row['difference']:+.3f}", f"{low:+.3f} to {high:+.3f}"
