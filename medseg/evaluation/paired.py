"""Two models compared over the same patients: means, spread over seeds, bootstrap over patients."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from medseg.errors import DataError
from medseg.evaluation.policy import Outcome
from medseg.evaluation.run import evaluate
from medseg.evaluation.scorecard import Scorecard
from medseg.evaluation.summary import number_patients
from medseg.imaging.volume import Array

Scores = Mapping[str, Mapping[str, float]]
"""Case -> organ -> Dice; no entry where the organ was not contoured, or is neither there nor found."""
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


def compare(
    ours: Sequence[Scores],
    theirs: Sequence[Scores],
    organs: Sequence[str],
    patient_of: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Difference of mean Dice (ours - theirs), seeds averaged, with 95 % intervals over patients.

    An organ that a patient lacks and any side or seed invents counts there: 0 for who invents it, 1 for who does not,
    in the means as in the difference. One that nobody invents does not count. Of fewer than two counted patients
    there is no interval, of a single seed no SD: None.

    Args:
        ours, theirs: scores, one for each seed.
        organs: the mean is that of their means.
        patient_of: case -> patient: patients are drawn with all their cases. One that it lacks is a patient of its own.

    Raises:
        DataError: the two were not scored on the same patients, or not by the same contours.
    """
    cases = sorted(ours[0])
    if any(sorted(each) != cases for each in (*ours, *theirs)):
        raise DataError("Both sides must be scored on the same patients, and every seed, too.")
    a, b = _tables(ours, theirs, organs, cases)
    gap = a.mean(axis=0) - b.mean(axis=0)
    counted = np.flatnonzero(np.isfinite(gap).any(axis=1))
    patients = [(patient_of or {}).get(cases[n], cases[n]) for n in counted]
    gap, numbers = gap[counted], number_patients(patients)
    drawn = _drawn(numbers)
    return {
        "patients": len(set(patients)),
        "ours": _spread([_mean(each) for each in a]),
        "theirs": _spread([_mean(each) for each in b]),
        **_difference(gap, numbers, drawn),
        "organs": {organ: _difference(gap[:, [n]], numbers, drawn) for n, organ in enumerate(organs)},
    }


def _tables(
    ours: Sequence[Scores], theirs: Sequence[Scores], organs: Sequence[str], cases: Sequence[str]
) -> tuple[Array, Array]:
    """Dice [seeds, cases, organs] of both sides; NaN where the organ does not count."""
    rows = [[[each[case].get(o, np.nan) for o in organs] for case in cases] for each in (*ours, *theirs)]
    table = np.asarray(rows, dtype=float)
    known = np.isfinite(table)
    lacking = known.any(axis=0) & ~known.all(axis=0)
    if (strange := lacking & (np.nan_to_num(table) > 0).any(axis=0)).any():
        case, organ = np.argwhere(strange)[0]
        raise DataError(
            f"Case {cases[case]}: {organs[organ]} was found right on one side, and not scored on another.",
            advice="Score both sides by the same references and index.",
        )
    # Invented by some, so that it counts: who has no score rightly left it out.
    table[lacking & ~known] = 1.0
    return table[: len(ours)], table[len(ours) :]


def _drawn(numbers: Array) -> list[Array]:
    """The cases of as many patients as there are, drawn again and again."""
    own = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    drawn = np.random.default_rng(0).integers(max(1, len(own)), size=(DRAWS, len(own)))
    return [np.concatenate([own[number] for number in row]) if own else numbers for row in drawn]


def _difference(gap: Array, numbers: Array, drawn: Sequence[Array]) -> dict[str, Any]:
    """Of the patients as they are, and of those that were `drawn` anew."""
    found: dict[str, Any] = {"difference": _rounded(_mean(gap)), "interval_95": None}
    if len(np.unique(numbers[np.isfinite(gap).any(axis=1)])) > 1:
        draws = np.array([_mean(gap[rows]) for rows in drawn])
        limits = np.percentile(draws[~np.isnan(draws)], (2.5, 97.5))
        found["interval_95"] = [round(float(limit), 4) for limit in limits]
    return found


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def _mean(values: Array) -> float:
    """Over the cases of each organ, then over organs, of [cases, organs]; NaN does not count."""
    there = ~np.isnan(values)
    counts = there.sum(axis=0)
    sums = np.where(there, values, 0.0).sum(axis=0)
    return float((sums[counts > 0] / counts[counts > 0]).mean()) if (counts > 0).any() else float("nan")


def _spread(values: Sequence[float]) -> dict[str, Any]:
    deviation = _rounded(float(np.std(values, ddof=1))) if len(values) > 1 else None
    return {"seeds": [_rounded(value) for value in values], "mean": _rounded(float(np.mean(values))), "sd": deviation}


def score(predictions: Path, references: Path, index: Path, organs: Sequence[str]) -> dict[str, dict[str, float]]:
    """Dice of every case's contoured organs by `medseg evaluate`; an organ that was missed counts 0."""
    return scores_of(evaluate(predictions, references, None, index=index, organs=list(organs)))


def scores_of(card: Scorecard, without: Collection[tuple[str, str]] = ()) -> dict[str, dict[str, float]]:
    """Every case -> organ -> Dice, where it is defined, `without` some (case, organ)."""
    found: dict[str, dict[str, float]] = {case: {} for case in card.cases}
    for row in card.rows:
        if row.figures.dice is not None and (row.case, row.organ) not in without:
            found[row.case][row.organ] = float(row.figures.dice)
    return found


def compare_cards(ours: Sequence[Scorecard], theirs: Sequence[Scorecard]) -> dict[str, Any]:
    """As `compare`, from scorecards, one for each seed; organs are those of the first.

    Raises:
        DataError: the two were not scored on the same patients, or not by the same contours.
    """
    # Who handed in no mask left nothing out rightly: an organ that is not there does not count for that case.
    without = {
        (row.case, row.organ)
        for card in (*ours, *theirs)
        for row in card.rows
        if row.figures.outcome is Outcome.UNPREDICTED
    }
    a, b = ([scores_of(card, without) for card in side] for side in (ours, theirs))
    found = compare(a, b, ours[0].organs, dict(zip(ours[0].cases, ours[0].patients, strict=False)))
    _require_same_contours([*ours, *theirs])
    return found | {"without_mask": {"ours": _without_mask(ours), "theirs": _without_mask(theirs)}}


def _without_mask(cards: Sequence[Scorecard]) -> list[str]:
    """Cases for which a seed handed in no mask."""
    return sorted({case for card in cards for case in card.references_without_prediction})


def _require_same_contours(cards: Sequence[Scorecard]) -> None:
    """Without a label table of the references each side's own names their values, and may mean other organs by them."""
    volumes = [{(row.case, row.organ): row.plain.reference_ml for row in card.rows} for card in cards]
    if any(each != volumes[0] for each in volumes) or any(card.organs != cards[0].organs for card in cards):
        raise DataError(
            "The two sides were scored by different contours: the references have no label table, and theirs differ.",
            advice="Give the references' label table as --index.",
        )


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
    table.caption = "; ".join(f"{name} {_side(side)}" for name, side in sides.items())
    table.caption += "\nAn organ that is not there and only one of them finds: 0 for that one, 1 for the other."
    for name, cases in zip(sides, found.get("without_mask", {}).values(), strict=False):
        if cases:
            listed = ", ".join(cases[:5]) + (" ..." if len(cases) > 5 else "")
            table.caption += f"\n{name} has no mask for {len(cases)} cases, and 0 for every organ there: {listed}."
    return table


def _side(side: Mapping[str, Any]) -> str:
    if side["mean"] is None:
        return "nothing scored"
    spread = "" if side["sd"] is None else f" (SD over {len(side['seeds'])} seeds {side['sd']:.3f})"
    return f"{side['mean']:.3f}{spread}"


def _cells(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["difference"] is None:
        return "", "no patient"
    if row["interval_95"] is None:
        return f"{row['difference']:+.3f}", "none: one patient"
    low, high = row["interval_95"]
    return f"{row['difference']:+.3f}", f"{low:+.3f} to {high:+.3f}"
