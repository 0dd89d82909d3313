"""Learning rate over a run, as a factor of its peak."""

from __future__ import annotations

import math

from medseg.training.loop import LoopConfig

POLY_POWER = 0.9


def share_done(step: int, seconds: float, config: LoopConfig) -> float:
    """How much of the run lies behind, 0 ... 1: by steps, or by counted time where that is limited and further on."""
    done = step / config.max_steps
    if config.max_minutes is not None:
        done = max(done, seconds / (60 * config.max_minutes))
    return min(1.0, done)


def seconds_left(step: int, seconds: float, seconds_per_step: float, config: LoopConfig) -> float:
    """At the pace of the latest steps: a run that goes on may lie on another machine than it began on."""
    left = (config.max_steps - step) * seconds_per_step
    return left if config.max_minutes is None else max(0.0, min(left, 60 * config.max_minutes - seconds))


def rate_factor(step: int, done: float, config: LoopConfig) -> float:
    """Linear warm-up over `warmup_steps`, then the schedule.

    `cosine`: half a period down to zero (Loshchilov & Hutter, 2017); `poly`: (1 - done) ** 0.9 (as nnU-Net);
    `constant`: no descent.

    Args:
        step: optimiser steps that lie behind.
        done: `share_done` at this step.
        config: the run's settings.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    warm = min(0.999, config.warmup_steps / config.max_steps) if config.max_minutes is None else 0.0
    left = 1 - min(1.0, max(0.0, (done - warm) / (1 - warm)))
    return left**POLY_POWER if config.schedule == "poly" else 0.5 * (1 - math.cos(math.pi * left))
