"""Seconds per tile of every candidate, and whether its answer is the reference's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from medseg.errors import MedsegError, ModelError
from medseg.inference.backends.predictor import Candidate, Predictor, Shape

ROUNDS = 3
OUT_OF_MEMORY = "no memory was left for it"
ENOUGH_SECONDS = 4.0
CLEARLY_FASTER = 1.1  # less is within the noise, and not worth the bits of a half precision
HOPELESS = 3.0  # times slower than the best in its first call: not worth a second
# Root mean square of the difference, relative to that of the reference. bf16 keeps 8 bits: some percent after
# twenty layers. int8 has passed the gate with masks; noise is not what it was calibrated for, and its error on noise
# stands in the card: the caller adds it.
TOLERANCE = {"fp32": 0.01, "bf16": 0.15, "fp16": 0.05}


def noise_tile(patch: Shape) -> Tensor:
    """A tile of noise over the normalised range, always the same: float32 [1, 1, i, j, k]."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 1, *patch, generator=generator) * 4 - 1


def seconds_per_tile(predictor: Predictor, tile: Tensor, best: float = float("inf")) -> tuple[float, Tensor]:
    """The shortest of a few calls after a first one, and the logits.

    A predictor whose first call takes several times `best` is not called again: that call is its figure.
    """
    if predictor.device == "cuda":
        predictor(tile)  # a GPU's first call loads kernels and says nothing of the others
    logits, first = _timed(predictor, tile)
    if first > HOPELESS * best:
        return first, logits
    spent, shortest = first, float("inf")
    for _ in range(ROUNDS):
        seconds = _timed(predictor, tile)[1]
        shortest, spent = min(shortest, seconds), spent + seconds
        if spent > ENOUGH_SECONDS:
            break
    return shortest, logits


def side_by_side(one: Predictor, other: Predictor, tile: Tensor, rounds: int = 5) -> tuple[float, float]:
    """The shortest call of each, taken in turns, so that other work on the machine hits both alike."""
    pairs = [(_timed(one, tile)[1], _timed(other, tile)[1]) for _ in range(rounds + 1)][1:]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def _timed(predictor: Predictor, tile: Tensor) -> tuple[Tensor, float]:
    began = time.perf_counter()
    logits = predictor(tile)
    return logits, time.perf_counter() - began


def relative_error(logits: Tensor, reference: Tensor) -> float:
    """Root mean square difference over root mean square of the reference; infinite where shapes or numbers fail."""
    if logits.shape != reference.shape or not torch.isfinite(logits).all():
        return float("inf")
    return float((logits - reference).square().mean().sqrt() / reference.square().mean().sqrt().clamp_min(1e-6))


def compare(
    candidates: Sequence[Candidate],
    build: Callable[[Candidate], Predictor],
    tile: Tensor,
    reference: Callable[[Tensor], Tensor] | None,
    tolerance: Mapping[str, float] = TOLERANCE,
) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of all that work and agree with `reference` on `tile`, and why the others were refused."""
    expected = None if reference is None else reference(tile)
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    for candidate in candidates:
        try:
            best = min(seconds.values(), default=float("inf"))
            taken, logits = seconds_per_tile(build(candidate), tile, best)
            _check(logits, expected, tolerance.get(candidate.precision, float("inf")))
        except (MemoryError, torch.OutOfMemoryError):
            refused[str(candidate)] = OUT_OF_MEMORY
        except (MedsegError, RuntimeError) as error:
            refused[str(candidate)] = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        else:
            seconds[str(candidate)] = round(taken, 6)
    return seconds, refused


def _check(logits: Tensor, expected: Tensor | None, tolerance: float) -> None:
    if not torch.isfinite(logits).all():
        raise ModelError("its logits are not finite", advice="")
    if expected is None:
        return
    error = relative_error(logits, expected)
    if error > tolerance:
        raise ModelError(f"its logits differ from PyTorch's by {error:.1%}", advice="")
