"""Intervals and comparisons: patients are what is drawn, seeds are what is paired."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], float]


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds between which 95 % of its bootstrap copies lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"

    def to_json(self) -> list[float]:
        """[value, low, high]."""
        return [round(self.value, 4), round(self.low, 4), round(self.high, 4)]


def bootstrap(
    values: Array, clusters: Sequence[Hashable], statistic: Statistic = np.nanmean, *, draws: int = 2000, seed: int = 0
) -> Interval:
    """A statistic of per-query values, whole patients drawn with replacement.

    Queries of one patient are no independent witnesses: they are drawn together.

    Args:
        values: [Q], NaN where a query cannot be judged.
        clusters: the patient of each query.
        statistic: of values, NaN among them.
        draws: bootstrap copies.
        seed: of the drawing.
    """
    names, of = np.unique(np.array([str(c) for c in clusters]), return_inverse=True)
    members = [np.flatnonzero(of == n) for n in range(len(names))]
    rng = np.random.default_rng(seed)
    copies = []
    for _ in range(draws):
        chosen = rng.integers(len(members), size=len(members))
        drawn = values[np.concatenate([members[n] for n in chosen])]
        copies.append(statistic(drawn) if np.isfinite(drawn).any() else np.nan)
    low, high = np.nanpercentile(copies, [2.5, 97.5])
    return Interval(float(statistic(values)), float(low), float(high))


@dataclass(frozen=True)
class PairedComparison:
    """What changed from one recipe to another over paired seeds.

    Attributes:
        before, after: means over the seeds.
        relative: (after - before) / before.
        low, high: 95 % t interval of the mean difference after - before.
        p: two-sided sign-flip test; with five seeds it cannot be below 1/16.
    """

    before: float
    after: float
    relative: float
    low: float
    high: float
    p: float

    def to_json(self) -> dict[str, float]:
        """Rounded figures."""
        return {name: round(value, 4) for name, value in vars(self).items()}


def compare_paired(before: Sequence[float], after: Sequence[float]) -> PairedComparison:
    """Two recipes run with the same seeds."""
    from scipy import stats

    first, second = np.array(before, float), np.array(after, float)
    change = second - first
    spread = stats.t.ppf(0.975, len(change) - 1) * change.std(ddof=1) / np.sqrt(len(change))
    flips = np.array(list(product((1, -1), repeat=len(change)))) @ change / len(change)
    p = float((np.abs(flips) >= abs(change.mean()) - 1e-12).mean())
    mean = float(change.mean())
    return PairedComparison(
        float(first.mean()), float(second.mean()), mean / float(first.mean()), mean - spread, mean + spread, p
    )
