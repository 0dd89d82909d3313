"""DynamicSampler: which studies share a batch.

A batch teaches by its contrasts. Random batches of an archive are mostly normal studies that differ in everything;
this sampler draws rare findings more often, keeps a patient's studies apart, and sets near misses side by side.
Batch n depends on (seed, n) alone, so that a resumed run and every rank see what they would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.errors import DataError
from vlretrieval.training.config import SamplerConfig

Codes = NDArray[np.int64]
_POOL = 8  # near misses among which one is drawn


class DynamicSampler:
    """Puts batches together.

    Args:
        found: [N, K] attributes of the studies; -1 is unknown.
        patients: of the studies.
        config: what is switched on.
        seed: of the run.

    Raises:
        DataError: fewer patients than a batch needs.
    """

    def __init__(self, found: Codes, patients: Sequence[str], config: SamplerConfig, seed: int = 0) -> None:
        self.found, self.config, self.seed = found, config, seed
        self.patients = np.unique(np.array(patients), return_inverse=True)[1]
        groups = len(np.unique(self.patients)) if config.one_per_patient else len(found)
        if groups < config.batch_size:
            what = "patients" if config.one_per_patient else "studies"
            raise DataError(
                f"{groups} {what} do not fill a batch of {config.batch_size}.", advice="Set sampler.batch_size lower."
            )
        self.chance = balanced_chances(found) if config.balance else np.full(len(found), 1 / len(found))
        self.likeness = likeness(found) if config.neighbours else None

    def batch(self, number: int) -> list[int]:
        """The studies of batch `number`, `batch_size` different ones."""
        rng = np.random.default_rng([self.seed, 1, number])
        size = self.config.batch_size
        hard = int(size * self.config.neighbours) if number >= self.config.after else 0
        chosen: list[int] = []
        free = np.ones(len(self.found), dtype=bool)
        while len(chosen) < size:
            anchor = self._draw(rng, free)
            self._take(anchor, chosen, free)
            if hard and len(chosen) < size:
                partner = self._near_miss(rng, anchor, free)
                if partner is not None:
                    self._take(partner, chosen, free)
                    hard -= 1
        return chosen

    def _draw(self, rng: np.random.Generator, free: NDArray[np.bool_]) -> int:
        chance = np.where(free, self.chance, 0)
        return int(rng.choice(len(chance), p=chance / chance.sum()))

    def _take(self, study: int, chosen: list[int], free: NDArray[np.bool_]) -> None:
        chosen.append(study)
        free[study] = False
        if self.config.one_per_patient:
            free[self.patients == self.patients[study]] = False

    def _near_miss(self, rng: np.random.Generator, anchor: int, free: NDArray[np.bool_]) -> int | None:
        assert self.likeness is not None
        alike = np.where(free, self.likeness[anchor], -1)
        alike[alike >= 1] = -1  # no miss at all: nothing is known that tells them apart
        nearest = np.argsort(-alike, kind="stable")[:_POOL]
        nearest = nearest[alike[nearest] > 0]
        return int(rng.choice(nearest)) if len(nearest) else None


def balanced_chances(found: Codes) -> NDArray[np.float64]:
    """Chance of each study: the mean over its attributes of the inverse root of their values' frequency."""
    weight = np.zeros(found.shape)
    for column in range(found.shape[1]):
        values, which, counts = np.unique(found[:, column], return_inverse=True, return_counts=True)
        weight[:, column] = np.where(values[which] >= 0, counts[which] ** -0.5, 0)
    known = (found >= 0).sum(axis=1)
    mean = weight.sum(axis=1) / np.maximum(1, known)
    floor = mean[mean > 0].min() if (mean > 0).any() else 1.0
    chance = np.maximum(mean, floor)
    return chance / chance.sum()


def likeness(found: Codes) -> NDArray[np.float64]:
    """[N, N] share of attributes known of both that are equal; 0 where nothing is known of both."""
    known = (found >= 0).astype(np.float64)
    equal = np.zeros((len(found), len(found)))
    for column in found.T:
        equal += (column[:, None] == column[None]) & (column[:, None] >= 0)
    return equal / np.maximum(1, known @ known.T)
