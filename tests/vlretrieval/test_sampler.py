"""Which studies share a batch."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import DataError
from vlretrieval.sampler import DynamicSampler, balanced_chances, likeness
from vlretrieval.training.config import SamplerConfig

RNG = np.random.default_rng(0)
FOUND = np.stack([(RNG.random(200) < 0.05).astype(int), RNG.integers(0, 3, 200), RNG.integers(-1, 2, 200)], axis=1)
PATIENTS = [f"p{n // 2}" for n in range(200)]


def sampler(**changes: object) -> DynamicSampler:
    return DynamicSampler(FOUND, PATIENTS, SamplerConfig(batch_size=16, **changes), seed=3)  # type: ignore[arg-type]


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    first, second = sampler(after=0), sampler(after=0)
    second.batch(5)
    assert first.batch(7) == second.batch(7)
    assert first.batch(7) != first.batch(8)
    assert DynamicSampler(FOUND, PATIENTS, SamplerConfig(batch_size=16), seed=4).batch(7) != first.batch(7)


def test_no_two_studies_of_a_patient() -> None:
    made = sampler(after=0)
    for number in range(20):
        batch = made.batch(number)
        assert len({PATIENTS[study] for study in batch}) == len(batch) == 16


def test_rare_findings_come_more_often() -> None:
    plain = sampler(balance=False, neighbours=0)
    balanced = sampler(neighbours=0)
    share = [np.mean([FOUND[study, 0] for n in range(100) for study in made.batch(n)]) for made in (plain, balanced)]
    assert share[1] > 1.25 * share[0]


def test_near_misses_stand_side_by_side_after_the_warm_up() -> None:
    made = sampler(after=10, balance=False)

    def nearest(batch: list[int]) -> float:
        alike = likeness(FOUND)[np.ix_(batch, batch)] - 2 * np.eye(len(batch))
        return float(np.where(alike < 1, alike, -1).max(axis=1).mean())

    early, late = ([nearest(made.batch(n)) for n in span] for span in (range(10), range(10, 60)))
    assert np.mean(late) > np.mean(early)


def test_studies_that_nothing_tells_apart_are_no_near_misses() -> None:
    same = np.zeros((40, 2), dtype=np.int64)
    batch = DynamicSampler(same, [str(n) for n in range(40)], SamplerConfig(batch_size=8, after=0)).batch(0)
    assert len(set(batch)) == 8


def test_chances_and_likeness_by_hand() -> None:
    found = np.array([[1, -1], [0, 0], [0, 1], [0, 1]])
    chance = balanced_chances(found)
    assert chance.sum() == pytest.approx(1)
    assert chance.argmax() == 0  # one of four, against three of four
    assert likeness(found)[1].tolist() == [0, 1, 0.5, 0.5]


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(DataError, match="2 patients do not fill"):
        DynamicSampler(FOUND[:4], PATIENTS[:4], SamplerConfig(batch_size=4))
