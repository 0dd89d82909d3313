"""What the first stage found: as a type, as a file in the run's folder, in words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from medseg.training.config import TrainConfig
from medseg.training.profiler import Verdict

RESULT = "small_batch.json"


@dataclass(frozen=True)
class SmallBatch:
    """What the stage found.

    Attributes:
        sound: whether the full training may start.
        reasons: why not; empty where it is.
        losses: of every step.
        loss_before, loss_after: means over the first and the last time that each batch was seen.
        dice: mean over the cases that were validated; None where none could be judged.
        validated: how many.
        seconds_per_case: of one validation, the way back to the scan's grid included.
        patches_per_second: all ranks together.
        memory_mb: the largest that was seen: of a GPU, or of a computer's ranks and the processes that they started.
        forecast_minutes: of the whole full training, validations included.
        bottleneck: of the steps.
        of: digest of the settings and data that this was found with.
    """

    sound: bool
    reasons: tuple[str, ...]
    losses: tuple[float, ...]
    loss_before: float
    loss_after: float
    dice: float | None
    validated: int
    seconds_per_case: float
    patches_per_second: float
    memory_mb: float
    forecast_minutes: float
    bottleneck: Verdict
    of: str

    def lines(self) -> list[str]:
        """In words."""
        dice = "nothing to judge" if self.dice is None else f"Dice {self.dice:.2f}"
        return [
            f"loss of the same batches {self.loss_before:.3f} -> {self.loss_after:.3f} in {len(self.losses)} steps",
            f"package written, loaded and scored on {self.validated} cases ({dice}, after so few steps)",
            f"{self.patches_per_second:.2f} patches/s, {self.memory_mb:,.0f} MB",
            self.bottleneck.text,
            f"full training will take about {_duration(self.forecast_minutes)}",
            "sound" if self.sound else "NOT sound: " + " ".join(self.reasons),
        ]


def read_small_batch(out: Path, of: str | None = None) -> SmallBatch | None:
    """What the stage left in a run's folder; None where it did not run, or with other settings or data than `of`."""
    path = out / RESULT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lists = {"reasons": tuple(found["reasons"]), "losses": tuple(found["losses"])}
        result = SmallBatch(**(found | lists | {"bottleneck": Verdict(**found["bottleneck"])}))
    except (KeyError, TypeError, ValueError):
        return None
    return result if of in (None, result.of) else None


def digest(settings: TrainConfig, data_sha256: str) -> str:
    """Of all settings that decide what is found, and of the training cases."""
    decisive = settings.model_dump_json(exclude={"card", "version", "cache", "tracking"})
    return hashlib.sha256(f"{decisive} {data_sha256}".encode()).hexdigest()


def _duration(minutes: float) -> str:
    return (
        f"{minutes * 60:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    )
