"""From rows to figures per organ and overall, with bootstrap confidence intervals by patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medseg.evaluation.arrays import OrganScore
from medseg.evaluation.metrics import Figures
from medseg.evaluation.policy import Outcome, Settings
from medseg.imaging.volume import Array

RESAMPLES = 2000
SEED = 0
Pick = Callable[[OrganScore], Figures]


def scoped(row: OrganScore) -> Figures:
    """The figures in the organ's scope."""
    return row.figures


def plain(row: OrganScore) -> Figures:
    """The figures in the whole scan."""
    return row.plain


def summarise(
    rows: Sequence[OrganScore],
    organs: Sequence[str],
    cases: Sequence[str],
    settings: Settings,
    patients: Sequence[str] = (),
) -> dict[str, Any]:
    """Per organ and overall figures as plain JSON values; see `Scorecard.to_dict` for the keys.

    `patients` says whose each case is; where empty, every case is a patient.
    """
    interval = _Bootstrap(number_patients(patients or cases))
    by_organ = {organ: [row for row in rows if row.organ == organ] for organ in organs}
    return {
        "organs": {organ: _organ(organ, own, cases, settings, interval) for organ, own in by_organ.items()},
        "overall": _overall(by_organ, cases, settings, interval),
    }


def _organ(
    organ: str, rows: Sequence[OrganScore], cases: Sequence[str], settings: Settings, interval: _Bootstrap
) -> dict[str, Any]:
    summary = {
        "scope": settings.scope_of(organ),
        "tolerance_mm": settings.tolerance_of(organ),
        "unknown": len(cases) - len(rows),
    }
    summary |= _figures(rows, scoped, cases, settings, interval)
    if organ in settings.within_contoured:
        summary["plain"] = _figures(rows, plain, cases, settings, interval)
    return summary


def _figures(
    rows: Sequence[OrganScore], pick: Pick, cases: Sequence[str], settings: Settings, interval: _Bootstrap
) -> dict[str, Any]:
    outcomes = [pick(row).outcome for row in rows]
    counted = [pick(row) for row in rows if settings.policy.in_mean(pick(row).outcome)]
    referenced = [figures for figures in counted if figures.outcome.has_reference]
    dice_by_case = _by_case(rows, pick, cases, settings)[None]
    return {
        "n": len(counted),
        "scored": outcomes.count(Outcome.SCORED),
        "misses": outcomes.count(Outcome.MISS),
        "missed_cases": [row.case for row in rows if pick(row).outcome is Outcome.MISS],
        "false_positives": outcomes.count(Outcome.FALSE_POSITIVE),
        "true_negatives": outcomes.count(Outcome.TRUE_NEGATIVE),
        "dice": _spread([f.dice for f in counted]) | {"ci95": interval.of_mean(dice_by_case)},
        "surface_dice": _spread([f.surface_dice for f in counted]),
        "hd95_mm": _spread([f.hd95_mm for f in counted]) | {"misses": outcomes.count(Outcome.MISS)},
        "hd95_penalised_mm": _spread([f.hd95_penalised_mm for f in counted]),
        "volume_error_ml": _error([f.volume_error_ml for f in referenced]),
        "volume_error_percent": _error([f.volume_error_percent for f in referenced]),
    }


def _overall(
    by_organ: dict[str, list[OrganScore]], cases: Sequence[str], settings: Settings, interval: _Bootstrap
) -> dict[str, Any]:
    overall = _mean_of_organs(by_organ, scoped, cases, settings, interval)
    if settings.within_contoured:
        overall["plain"] = _mean_of_organs(by_organ, plain, cases, settings, interval)
    return overall


def _mean_of_organs(
    by_organ: dict[str, list[OrganScore]], pick: Pick, cases: Sequence[str], settings: Settings, interval: _Bootstrap
) -> dict[str, Any]:
    organs = [_figures(rows, pick, cases, settings, interval) for rows in by_organ.values()]
    dice = np.stack([_by_case(rows, pick, cases, settings) for rows in by_organ.values()])
    return {
        "dice": {"mean": _mean([o["dice"]["mean"] for o in organs]), "ci95": interval.of_mean(dice)},
        "surface_dice": {"mean": _mean([o["surface_dice"]["mean"] for o in organs])},
        "hd95_mm": {"mean": _mean([o["hd95_mm"]["mean"] for o in organs]), "misses": sum(o["misses"] for o in organs)},
        "hd95_penalised_mm": {"mean": _mean([o["hd95_penalised_mm"]["mean"] for o in organs])},
        "n": sum(o["n"] for o in organs),
        "misses": sum(o["misses"] for o in organs),
        "false_positives": sum(o["false_positives"] for o in organs),
        "true_negatives": sum(o["true_negatives"] for o in organs),
    }


def _by_case(rows: Sequence[OrganScore], pick: Pick, cases: Sequence[str], settings: Settings) -> Array:
    """Dice [cases]; NaN where the organ does not count."""
    dice = {row.case: pick(row).dice for row in rows if settings.policy.in_mean(pick(row).outcome)}
    return np.array([dice.get(case, np.nan) for case in cases], dtype=float)


def number_patients(patients: Sequence[str]) -> Array:
    """Whose each case is, as numbers from 0 in order of appearance, [cases]: 0, 1, 2 ... where nobody has two."""
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[patient] for patient in patients], dtype=int)


class _Bootstrap:
    """Percentile bootstrap over patients (Efron, 1979): whole patients are drawn, with all their cases and organs.

    Args:
        patient: number of each case's patient, [cases].
    """

    def __init__(self, patient: Array) -> None:
        number = int(patient.max()) + 1
        drawn = np.random.default_rng(SEED).integers(number, size=(RESAMPLES, number))
        self.patient = patient
        self.counts = np.stack([np.bincount(patients, minlength=number) for patients in drawn])[:, patient]

    def of_mean(self, values: Array) -> list[float] | None:
        """95 % interval of the mean of organ means; `values` is [organs, cases] with NaN for 'does not count'.

        None for fewer than two patients, where nothing can be said.
        """
        valid = np.isfinite(values)
        if len(np.unique(self.patient[np.atleast_2d(valid).any(axis=0)])) < 2:
            return None
        drawn = self.counts @ valid.T
        sums = self.counts @ np.where(valid, values, 0).T
        means = np.divide(sums, drawn, out=np.full(sums.shape, np.nan), where=drawn > 0)
        # An organ that no drawn patient has says nothing in that resample.
        kept = means[np.isfinite(means).any(axis=1)]
        low, high = np.percentile(np.nanmean(kept, axis=1), [2.5, 97.5])
        return [_round(low), _round(high)]


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    known = np.array([value for value in values if value is not None], dtype=float)
    if not len(known):
        return {"n": 0, "mean": None, "median": None, "sd": None, "p5": None, "p95": None}
    low, middle, high = np.percentile(known, [5, 50, 95])
    deviation = _round(known.std(ddof=1)) if len(known) > 1 else None
    return {
        "n": len(known),
        "mean": _round(known.mean()),
        "median": _round(middle),
        "sd": deviation,
        "p5": _round(low),
        "p95": _round(high),
    }


def _error(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {"mean": _mean(known), "mean_absolute": _mean([abs(value) for value in known])}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _round(float(np.mean(known))) if known else None


def _round(value: float) -> float:
    return round(float(value), 6)
