"""A task without scans: a line through points. What the loop does is seen without the cost of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg.training.loop import LoopConfig
from medseg.training.task import Loss, Task
from medseg.training.trainer import Trainer


@dataclass(frozen=True)
class Points:
    x: Tensor
    y: Tensor
    ids: tuple[str, ...]


class LineTask(Task[Points]):
    """y = 3 x - 1, with dropout so that the random state matters; `spoil` changes a batch."""

    def __init__(self, size: int = 4, dropout: float = 0.1, spoil: Callable[[int, Tensor], Tensor] | None = None):
        self.size, self.dropout, self.spoil = size, dropout, spoil
        self.validated: list[int] = []

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Dropout(self.dropout), nn.Linear(16, 1))

    def batch(self, number: int) -> Points:
        x = torch.rand(self.size, 1, generator=torch.Generator().manual_seed(number))
        y = 3 * x - 1
        return Points(x, y if self.spoil is None else self.spoil(number, y), tuple(f"p{number}.{n}" for n in range(2)))

    def loss(self, network: nn.Module, batch: Points) -> Loss:
        error = (network(batch.x) - batch.y).square().mean()
        return Loss(error, {"root": error.detach().sqrt()})

    def validate(self, network: nn.Module, step: int) -> dict[str, float]:
        assert not network.training
        self.validated.append(step)
        return {"at_half": float(network(torch.tensor([[0.5]])))}

    def identity(self) -> dict[str, Any]:
        return {"size": self.size}


def loop(**changes: Any) -> LoopConfig:
    quick = {"max_steps": 10, "warmup_steps": 2, "precision": "fp32", "workers": 0, "learning_rate": 0.01}
    return LoopConfig.model_validate(quick | changes)


def line_trainer(folder: Path, task: LineTask | None = None, *, said: list[str] | None = None, **changes: Any) -> Any:
    """A trainer; keywords of `Trainer` and settings of the loop both go through `changes`."""
    own = {key: changes.pop(key) for key in ("stop", "watchers", "ranks") if key in changes}
    lines = [] if said is None else said
    return Trainer(task or LineTask(), loop(**changes), folder, progress=lambda e: lines.append(e.message), **own)
