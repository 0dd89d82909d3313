"""A training step in bf16 beside one in fp32: seconds, and the loss after equal steps.

`PYTHONPATH=. python benchmarks/bf16_step.py --minutes 5 -o benchmarks/results/bf16_step.json`. Two trainings with the
same seed see the same batches of computed bodies, step by step in turn, so that whatever else the machine does falls on
both. The ratio is that of the medians; its interval comes from a bootstrap over the pairs. `--smoke` takes a small
network for seconds.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from benchmarks.fixed_batches import SHIPPED, SMOKE, FixedBatches, fixed_batches
from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import machine, versions
from medseg.training.loop import LoopConfig
from medseg.training.trainer import Trainer

WARM = 2  # pairs that are not counted


@dataclass
class Side:
    """One of the two trainings."""

    trainer: Trainer[Any]
    task: FixedBatches
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def step(self) -> None:
        """One step more."""
        batches = iter([self.task.batch(self.trainer.step)])
        began = time.perf_counter()
        loss, _, _ = self.trainer.train_step(self.trainer.network, batches)
        self.seconds.append(time.perf_counter() - began)
        self.losses.append(loss)
        self.trainer.step += 1


def side(task: FixedBatches, precision: str, folder: Path) -> Side:
    """A training that stands at its first step."""
    loop = LoopConfig.model_validate(
        {"precision": precision, "schedule": "constant", "warmup_steps": 0, "learning_rate": 2e-3, "workers": 0}
    )
    trainer: Trainer[Any] = Trainer(task, loop, folder / precision)
    trainer.amp.half_share = 0.0  # nobody looks into a step while it is timed
    return Side(trainer, task)


def measure(options: dict[str, Any], patch: int, minutes: float, most: int) -> dict[str, Any]:
    """Pairs of steps until the time is over or `most` are taken."""
    task = fixed_batches(options, patch, 8)
    with tempfile.TemporaryDirectory() as place:
        pair = [side(task, precision, Path(place)) for precision in ("fp32", "bf16")]
        until = time.monotonic() + 60 * minutes
        while len(pair[0].losses) < most and (time.monotonic() < until or len(pair[0].losses) <= WARM + 2):
            for each in pair if len(pair[0].losses) % 2 else reversed(pair):
                each.step()
    full, half = (np.array(each.seconds[WARM:]) for each in pair)
    tail = max(1, len(full) // 5)
    ends = [float(np.mean(each.losses[-tail:])) for each in pair]
    return {
        "patch": patch,
        "channels": options["channels"],
        "threads": torch.get_num_threads(),
        "pairs": len(full),
        "fp32_s": round(float(np.median(full)), 4),
        "bf16_s": round(float(np.median(half)), 4),
        "ratio": round(float(np.median(full) / np.median(half)), 3),
        "ratio_95": interval(full, half),
        "loss_start": round(float(np.mean([each.losses[0] for each in pair])), 4),
        "fp32_loss": round(ends[0], 4),
        "bf16_loss": round(ends[1], 4),
        "losses": {"fp32": [round(v, 4) for v in pair[0].losses], "bf16": [round(v, 4) for v in pair[1].losses]},
    }


def interval(full: Any, half: Any, draws: int = 2000) -> list[float]:
    """95 % of the ratio of medians, pairs drawn with replacement."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(full), size=(draws, len(full)))
    ratios = np.median(full[rows], axis=1) / np.median(half[rows], axis=1)
    return [round(float(v), 3) for v in np.percentile(ratios, (2.5, 97.5))]


def main(
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None, minutes: float = 5.0, smoke: bool = False
) -> None:
    """Measure and write."""
    row = measure(SMOKE, 32, minutes, 12) if smoke else measure(SHIPPED, 64, minutes, 200)
    print(json.dumps({key: value for key, value in row.items() if key != "losses"}, indent=2))
    if out is not None:
        emit_json(out, {"machine": machine(), "versions": versions(), **row})


if __name__ == "__main__":
    tyro.cli(main)
