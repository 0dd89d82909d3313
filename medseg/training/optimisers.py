"""The optimiser of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medseg.training.loop import LoopConfig


def build_optimiser(groups: Sequence[dict[str, Any]], config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov's momentum. A group's `scale` stays in it for `set_rate`."""
    groups = [{"scale": 1.0} | group for group in groups]
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the coming step, in every group by its scale."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]
