"""`medseg benchmark tile`: seconds of one window on everything that can run a model here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medseg.inference.backends.build import BACKENDS, candidates_of
from medseg.inference.backends.measure import noise_tile, seconds_per_tile
from medseg.inference.backends.predictor import Candidate, patch_of
from medseg.models.store import ModelPackage

ROUNDS = 3


@dataclass(frozen=True)
class TileResult:
    """Seconds per window of one way to run a model: the shortest of each round, rounds interleaved."""

    candidate: Candidate
    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        return min(self.seconds)


def benchmark_tile(package: ModelPackage, rounds: int = ROUNDS) -> list[TileResult]:
    """All candidates, side by side, the fastest first; PyTorch in fp32 is always among them.

    Raises:
        ModelError: a candidate cannot run the model.
    """
    candidates = {*candidates_of(package), Candidate("torch", "fp32")}
    predictors = {one: BACKENDS[one.backend](package, one.precision) for one in sorted(candidates)}
    tile = noise_tile(patch_of(package))
    seconds: dict[Candidate, list[float]] = {one: [] for one in predictors}
    for _ in range(rounds):
        for one, predictor in predictors.items():
            seconds[one].append(round(seconds_per_tile(predictor, tile)[0], 4))
    return sorted((TileResult(one, tuple(times)) for one, times in seconds.items()), key=lambda result: result.best)


def as_json(results: list[TileResult]) -> Mapping[str, list[float]]:
    """Way -> seconds of its rounds."""
    return {str(result.candidate): list(result.seconds) for result in results}
