"""Small-batch validation, the first of two stages: everything a long run needs, tried in minutes.

A few batches are learnt by heart, a package is written, it segments and scores a few cases, and what it took says when
the full training will end and what memory it wants. The network is thrown away: the full training starts from its own
seed, with the same weights as without this stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from medseg.errors import DataError
from medseg.imaging.emit import emit_json
from medseg.runtime.room import total_mb
from medseg.training.cases import Dataset, read_index
from medseg.training.config import SmallBatchConfig, TrainConfig
from medseg.training.distributed import Ranks, from_first, largest, ranks_here, wait_for_all
from medseg.training.feed import workers_for
from medseg.training.journal import StepRecord
from medseg.training.loop import LoopConfig
from medseg.training.package import write_package
from medseg.training.patches import Batch, PatchSampler
from medseg.training.profiler import TrainingProfiler, Verdict
from medseg.training.segmentation import SegmentationTask
from medseg.training.small_batch_result import RESULT, SmallBatch, digest, read_small_batch
from medseg.training.subset import write_subset
from medseg.training.trainer import GRAPHS, Trainer
from medseg.training.validation import validate

FOLDER = "small_batch"
TIGHT = 0.9  # share of the memory from which on a run is likely to be ended by the system
NOTHING_SCORED = (
    "no organ could be scored in the validation cases: their masks are empty, or nothing of them is contoured; "
    "`medseg train check` says which."
)


@dataclass(frozen=True)
class _Learnt:
    """By heart: every step, what bounded them, the network, and the largest memory of any GPU or computer."""

    records: list[StepRecord]
    bottleneck: Verdict
    network: torch.nn.Module
    memory_mb: float


@dataclass(frozen=True)
class _Scored:
    """A few cases by the network's package; `dice` is None where none could be judged."""

    count: int
    seconds_per_case: float
    dice: float | None


class FewBatches(SegmentationTask):
    """The task with its first batches again and again."""

    def __init__(self, sampler: PatchSampler, config: TrainConfig, batches: int) -> None:
        super().__init__(sampler, config)
        self.batches = batches

    def batch(self, number: int) -> Batch:
        """Batch `number` of the stage."""
        return super().batch(number % self.batches)


def try_small_batch(
    out: Path,
    settings: TrainConfig,
    task: SegmentationTask,
    dataset: Dataset,
    ranks: Ranks,
    say: Callable[[str], None],
) -> SmallBatch:
    """Run the stage on all ranks; one that was found sound with the same settings before is taken over.

    Raises:
        DataError: a loss that is not finite; names the cases.
        MedsegError: whatever else would have ended the full training, hours later.
    """
    small = settings.small_batch or SmallBatchConfig()
    found = from_first(read_small_batch(out, digest(settings, task.data_sha256)) if ranks.first else None)
    if found is not None and found.sound:
        say("small-batch validation: was sound with these settings already")
        return found
    say(f"small-batch validation: {small.steps} steps on {small.batches} batches")
    learnt = _learn_by_heart(out / FOLDER, settings, small, task, ranks, say)
    result = None
    if ranks.first:
        scored = _validate(out / FOLDER, settings, small, task, learnt.network, dataset)
        result = _judged(task, small, learnt, scored, len(dataset.of("validation")), ranks)
        emit_json(out / RESULT, asdict(result))
        for line in result.lines():
            say(f"small-batch validation: {line}")
    wait_for_all()  # however long the first one scores: a collective of the training would give up
    result = from_first(result)
    assert result is not None
    return result


def require_sound(result: SmallBatch) -> None:
    """Let the full training start, or say why it should not.

    Raises:
        DataError: the stage was not sound.
    """
    if not result.sound:
        raise DataError(
            f"Small-batch validation is not sound: {' '.join(result.reasons)}",
            advice="Mend that, or start the full training all the same with --stage full.",
        )


def _loop(config: LoopConfig, small: SmallBatchConfig) -> LoopConfig:
    changes: dict[str, Any] = {
        "max_steps": small.steps,
        "max_minutes": small.max_minutes,
        "warmup_steps": min(config.warmup_steps, small.steps // 10),
        "schedule": "constant",
        "ema_decay": None,
        "validate_steps": 0,
        "log_steps": max(1, small.steps // 4),
        "checkpoint_minutes": 1e6,
    }
    return config.model_copy(update=changes)


def _learn_by_heart(
    folder: Path,
    settings: TrainConfig,
    small: SmallBatchConfig,
    task: SegmentationTask,
    ranks: Ranks,
    say: Callable[[str], None],
) -> _Learnt:
    few = FewBatches(
        PatchSampler(_richest(task, small.cases), settings, task.sampler.labels),
        settings,
        _cycle(small, settings, ranks),
    )
    records: list[StepRecord] = []
    workers = workers_for(settings.loop.workers, ranks.device)
    with TrainingProfiler(metrics=(), interval=0.5, workers=workers) as profiler:
        trainer = Trainer(
            few,
            _loop(settings.loop, small),
            folder,
            ranks=ranks,
            progress=lambda event: say(f"small-batch validation: {event.message}"),
            watchers=[records.append, profiler],
            graphs=folder.parent / GRAPHS,  # the full training finds them built
        )
        trainer.start_over()
        network = trainer.run()
    (memory_mb,) = largest([_memory_mb(profiler, ranks)], ranks.device)
    return _Learnt(records, profiler.verdict, network, memory_mb)


def _cycle(small: SmallBatchConfig, settings: TrainConfig, ranks: Ranks) -> int:
    """So many batches that every step of a cycle sees its own, on all ranks."""
    return small.batches * settings.loop.gradient_aggregation_interval * ranks.world


def _richest(task: SegmentationTask, count: int) -> list[Any]:
    """Cases that show most organs; the order of the data set decides between equals."""
    cases = task.sampler.cases
    return sorted(cases, key=lambda case: -len(case.places))[:count]


def _memory_mb(profiler: TrainingProfiler, ranks: Ranks) -> float:
    """Of a GPU, or of all ranks of this computer."""
    if ranks.device.type == "cuda":
        return torch.cuda.max_memory_allocated(ranks.device) / 2**20
    return profiler.peak_memory_mb * ranks_here()


def _validate(
    folder: Path,
    settings: TrainConfig,
    small: SmallBatchConfig,
    task: SegmentationTask,
    network: torch.nn.Module,
    dataset: Dataset,
) -> _Scored:
    """The whole end of a run: package, loading, segmenting, scores."""
    write_package(folder / "package", network, settings, task.sampler.labels, task.sampler.cases)
    cases = sorted(dataset.of("validation") or dataset.of("train"), key=lambda case: not case.contoured)[: small.cases]
    index = write_subset(dataset, folder / "data", {case.id: "validation" for case in cases})
    began = time.perf_counter()
    scores = validate(folder, settings.model_copy(update={"index": index}), read_index(index), lambda line: None)
    seconds = (time.perf_counter() - began) / len(cases)
    dice = None if scores is None else scores.to_dict()["overall"]["dice"]["mean"]
    return _Scored(len(cases), seconds, dice)


def _judged(
    task: SegmentationTask, small: SmallBatchConfig, learnt: _Learnt, scored: _Scored, cases: int, ranks: Ranks
) -> SmallBatch:
    """The stage's result; `cases` would be validated by the full training."""
    settings = task.config
    losses = tuple(round(record.loss, 5) for record in learnt.records)
    span = max(1, min(small.batches, len(losses) // 2))
    before, after = sum(losses[:span]) / span, sum(losses[-span:]) / span
    step_s = learnt.bottleneck.seconds_per_step or learnt.records[0].seconds
    patches = settings.batch_size * settings.loop.gradient_aggregation_interval * ranks.world
    seen_again = after if len(losses) >= 2 * small.batches else None
    judged = scored.dice is not None or not cases
    reasons = _reasons(small, before, seen_again, learnt.memory_mb, ranks, scored=judged)
    return SmallBatch(
        sound=not reasons,
        reasons=tuple(reasons),
        losses=losses,
        loss_before=before,
        loss_after=after,
        dice=scored.dice,
        validated=scored.count,
        seconds_per_case=scored.seconds_per_case,
        patches_per_second=patches / step_s,
        memory_mb=learnt.memory_mb,
        forecast_minutes=forecast_minutes(settings.loop, step_s, scored.seconds_per_case * cases),
        bottleneck=learnt.bottleneck,
        of=digest(settings, task.data_sha256),
    )


def forecast_minutes(loop: LoopConfig, step_s: float, validation_s: float) -> float:
    """Of the full training: its steps, or its time limit where that comes first, and every look at the validation."""
    steps_s = loop.max_steps * step_s
    share = 1.0
    if loop.max_minutes is not None and loop.max_minutes * 60 < steps_s:
        share, steps_s = loop.max_minutes * 60 / steps_s, loop.max_minutes * 60
    looks = 1 + (int(loop.max_steps * share) // loop.validate_steps if loop.validate_steps else 0)
    return (steps_s + looks * validation_s) / 60


def _reasons(
    small: SmallBatchConfig, before: float, after: float | None, memory_mb: float, ranks: Ranks, *, scored: bool
) -> list[str]:
    """What speaks against the full training; `after` is None where no batch was seen twice in the time there was."""
    reasons = [] if scored else [NOTHING_SCORED]
    if after is None:
        reasons.append(
            f"fewer than {2 * small.batches} steps fitted into {small.max_minutes:g} minutes: whether it learns is "
            f"unknown. Give small_batch.max_minutes more, or take a smaller patch or network."
        )
    elif after > small.must_fall_to * before:
        reasons.append(
            f"the loss of a few batches went from {before:.3f} to {after:.3f}, and should fall to "
            f"{small.must_fall_to:g} of it: labels that do not fit their scans, or a wrong learning rate."
        )
    there = _there_mb(ranks)
    if memory_mb > TIGHT * there:
        reasons.append(f"{memory_mb:,.0f} of {there:,.0f} MB are taken: a smaller patch or batch, or fewer workers.")
    return reasons


def _there_mb(ranks: Ranks) -> float:
    if ranks.device.type == "cuda":
        return torch.cuda.get_device_properties(ranks.device).total_memory / 2**20
    return total_mb()
