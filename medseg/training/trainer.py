"""The training loop: plain, resumable, the same for every task, on one rank or many.

Owns precision, accumulation, clipping, schedule, average, checkpoints, log and progress. Knows no scans, no organs,
no words.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medseg.errors import Cancelled, ConfigError, DataError, OutputError, ResourceError
from medseg.imaging.emit import sweep_parts
from medseg.runtime.heap import give_back_at_once
from medseg.runtime.progress import Progress, ProgressCallback, ignore
from medseg.training.average import start_average, update_average
from medseg.training.checkpoint import LAST, Learner, find_checkpoint, load_checkpoint, save_checkpoint
from medseg.training.compiled import compiled
from medseg.training.distributed import Ranks, all_values, from_first, largest, share_batch_norm, wait_for_all
from medseg.training.feed import Feed, seed_all, worker_ended, workers_for
from medseg.training.journal import Journal, StepRecord, summarise
from medseg.training.loop import AUTO, LoopConfig, Precision
from medseg.training.optimisers import build_optimiser, set_rate
from medseg.training.precision import AutoMixedPrecision, fastest
from medseg.training.schedule import rate_factor, seconds_left, share_done
from medseg.training.task import Task, case_ids, case_names, moved
from medseg.training.trial import require_precision
from medseg.training.watch import Watch

B = TypeVar("B")

# Settings that a resumed run may change: places, how it is computed, and how long it goes on.
FREE = {
    "max_steps", "max_minutes", "checkpoint_minutes", "log_steps", "validate_steps", "workers", "device", "compile",
    "spare_memory",
}  # fmt: skip
GRAPHS = "graphs"
HELPLESS_STEPS = 10  # at the lowest scale, one after another: no overflow of fp16 that passes
RETRY_S = 60.0  # after a checkpoint that could not be written


class Trainer(Generic[B]):
    """Trains a task's network.

    Args:
        task: what is trained.
        config: how.
        folder: of the run; gets `last.safetensors`, `previous.safetensors` and `log.jsonl`.
        ranks: this process's place among those that train together.
        progress: told a sentence every `log_steps`.
        stop: asked after every step; where it says yes, the run is saved and `Cancelled` raised.
        watchers: called with every `StepRecord`.
        graphs: folder for what `loop.compile` builds; `graphs` in the run's own by default.

    Attributes:
        batches: of all ranks in one optimiser step, as the run was begun.
        interval: of them, how many each rank takes.
        step: optimiser steps that lie behind.
        seconds: what they took.
        done: share of the run that lies behind.
        saved: the step that the checkpoint holds, as the first rank knows; 0 where there is none.
    """

    def __init__(
        self,
        task: Task[B],
        config: LoopConfig,
        folder: Path,
        *,
        ranks: Ranks | None = None,
        progress: ProgressCallback = ignore,
        stop: Callable[[], bool] = lambda: False,
        watchers: Sequence[Callable[[StepRecord], None]] = (),
        graphs: Path | None = None,
    ) -> None:
        self.task, self.config, self.folder = task, config, folder
        self.graphs = graphs or folder / GRAPHS
        self.ranks = ranks or Ranks()
        self.progress, self.stop, self.watchers = progress, stop, watchers
        self.interval = config.gradient_aggregation_interval
        self.batches = self.interval * self.ranks.world
        seed_all(config.seed, 0)
        self.network, self.average = self._placed()
        self.optimiser = build_optimiser(task.groups(self.network), config)
        self.amp = self._precision()
        self.journal = Journal(folder if self.ranks.first else None)
        self.step, self.seconds, self.done, self.saved = 0, 0.0, 0.0, 0
        self._recent: list[StepRecord] = []

    def _placed(self) -> tuple[nn.Module, nn.Module | None]:
        """Network and average, on the device."""
        try:
            network = self.task.build().to(self.ranks.device)
            network = share_batch_norm(network.double() if self.config.precision == "fp64" else network)
            return network, None if self.config.ema_decay is None else start_average(network)
        except torch.OutOfMemoryError as error:
            raise _too_little_memory(0) from error

    @property
    def result(self) -> nn.Module:
        """What a run is for: the averaged network, or the network itself where no average is kept."""
        return self.network if self.average is None else self.average

    @property
    def _learner(self) -> Learner:
        return Learner(self.network, self.average, self.optimiser)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint; False where there is none.

        On another number of ranks a step takes as many batches as before, or the next higher number that divides.

        Raises:
            DataError: it is damaged or belongs to another network.
            ConfigError: it was made with settings that cannot change within a run, or not all ranks see it.
        """
        found = find_checkpoint(self.folder)
        state = None if found is None else load_checkpoint(found, self._learner, self._compare)
        self._check_seen_by_all(None if state is None else state["step"])
        if state is None:
            self.start_over()
            return False
        self._sweep()
        self.step = self.saved = state["step"]
        self.amp = self._precision(state["amp"].get("precision"))
        self.amp.load_state_dict(state["amp"])
        self.journal.reopen(self.step)
        self.seconds = float(from_first(self.journal.seconds))
        self.done = self._share_done()
        self._tell(f"resumed at step {self.step}")
        self._regroup(state.get("batches_per_step", self.batches))
        if state["max_steps"] != self.config.max_steps:
            self._tell(f"the run now ends at step {self.config.max_steps}, its learning rate with it")
        return True

    def _check_seen_by_all(self, step: int | None) -> None:
        """Ranks that went on from different steps would each train a network of their own, without a word."""
        steps = all_values(step)
        if len(set(steps)) > 1:
            listed = ", ".join(f"rank {n} {'none' if at is None else f'step {at}'}" for n, at in enumerate(steps))
            raise ConfigError(
                f"The ranks find different checkpoints in {self.folder}: {listed}.",
                advice="The run folder must be one that all of them see; start again where a file system was slow.",
            )

    def start_over(self) -> None:
        """Leave behind what an earlier start noted and half wrote before its first checkpoint."""
        self._sweep()
        self.journal.reopen(0)

    def _sweep(self) -> None:
        if self.ranks.first:
            sweep_parts(self.folder / LAST)  # of a start that was killed while it wrote; the run is this process's now

    def _regroup(self, batches: int) -> None:
        """Share the batches of a step among the ranks that there are now."""
        world = self.ranks.world
        self.batches, self.interval = batches, math.ceil(batches / world)
        taken = self.interval * world
        if self.interval == self.config.gradient_aggregation_interval and taken == batches:
            return
        self.journal.note(self._stamped({"step": self.step, "ranks": world, "batches_per_step": taken}))
        still = "as before" if taken == batches else f"not {batches} as before, which {world} ranks cannot share evenly"
        self._tell(f"ranks: {world}, each takes {self.interval} of a step's batches; a step has {taken}, {still}")

    def _precision(self, begun_in: Precision | None = None) -> AutoMixedPrecision:
        """`auto` as the run was begun, else as is fastest for the first rank: others may run on other processors."""
        auto = begun_in
        if auto is None and self.config.precision == AUTO:
            auto = from_first(fastest(self.ranks.device) if self.ranks.first else None)
        return AutoMixedPrecision.from_config(self.config, self.ranks.device, auto)

    def _settings(self) -> dict[str, Any]:
        ours = {f"loop.{key}": value for key, value in self.config.model_dump(mode="json").items() if key not in FREE}
        return ours | self.task.identity()

    def _compare(self, state: dict[str, Any]) -> None:
        now, before = self._settings(), state["settings"]
        if changed := [key for key in now if key in before and now[key] != before[key]]:
            raise ConfigError(
                f"{self.folder / LAST} was made with other settings: {', '.join(changed)}.",
                advice="Put them back, or choose another run folder.",
            )

    def run(self) -> nn.Module:
        """Train to the end; returns `result` in evaluation mode.

        Raises:
            DataError: a loss or gradient that is not finite; names the cases.
            WorkerError: another rank, or a process that prepares batches, is gone.
            Cancelled: `stop` said so; the checkpoint is written.
            ConfigError: this processor cannot train in the precision that is asked for.
            ResourceError: the GPU has too little memory.
        """
        require_precision(self.amp.precision, self.ranks.device)
        if self.config.precision == AUTO:
            self._tell(f"precision: {self.amp.precision}")
        if self.config.spare_memory and not (self.ranks.device.type == "cpu" and give_back_at_once()):
            self._tell("spare_memory: nothing to set here, this is for CPUs with glibc")
        wait_for_all()  # one that reads its cases longer than others is no silent one
        watch = Watch(self.ranks)
        try:
            self._run(watch)
        except Exception as error:
            cause = watch.failed(self._in_words(error))
            raise cause from (None if cause is error else error)
        watch.close()
        return self.result.eval()

    def _in_words(self, error: Exception) -> Exception:
        """The GPU's lack of memory and the end of a worker as errors of ours; anything else as it is."""
        if isinstance(error, torch.OutOfMemoryError):
            return _too_little_memory(self.step)
        return worker_ended(error) or error

    def _run(self, watch: Watch) -> None:
        plain = self._wrapped()
        model = compiled(plain, self.ranks.device, self.graphs, self._tell) if self.config.compile else plain
        feed = Feed(self.task, self._numbers(), self.config.seed, workers_for(self.config.workers, self.ranks.device))
        batches = iter(feed)
        due = self._next_save()
        while self.done < 1:
            watch.step = self.step
            began, waited = time.perf_counter(), feed.waited_s
            # The step that is looked at runs as written: what counts its work cannot look into a graph.
            looking = self.amp.half_share is None and self.ranks.first
            loss, parts, norm = self.train_step(plain if looking else model, batches)
            seconds = time.perf_counter() - began
            stopping, saving = self._advance(seconds, time.monotonic() > due)
            self._record(StepRecord(self.step, loss, parts, norm, seconds, feed.waited_s - waited))
            if stopping or saving:
                due = self._next_save() if self._save_or_say(final=stopping) else time.monotonic() + RETRY_S
            if stopping:
                raise Cancelled(f"Stopped at step {self.step} of {self.config.max_steps}; go on with --resume.")
        self._validate()
        self._save_or_say(final=True)

    def _next_save(self) -> float:
        return time.monotonic() + 60 * self.config.checkpoint_minutes

    def _numbers(self) -> range:
        world = self.ranks.world
        each = self.interval * world
        return range(self.step * each + self.ranks.rank, self.config.max_steps * each, world)

    def _advance(self, seconds: float, due: bool) -> tuple[bool, bool]:
        """A step more lies behind; returns whether any rank wants to stop, or to save. All agree on it."""
        self.step, self.seconds = self.step + 1, self.seconds + seconds
        wishes = [float(self.stop()), float(due), self._share_done()]
        stopping, saving, self.done = largest(wishes, self.ranks.device)
        return stopping > 0, saving > 0

    def _share_done(self) -> float:
        return share_done(self.step, self.seconds, self.config)

    def _wrapped(self) -> nn.Module:
        if self.ranks.world == 1:
            return self.network
        ids = [self.ranks.device.index] if self.ranks.device.type == "cuda" else None
        return DistributedDataParallel(self.network, device_ids=ids, gradient_as_bucket_view=True)

    def train_step(self, model: nn.Module, batches: Any) -> tuple[float, dict[str, float], float | None]:
        """One optimiser step over `interval` batches; returns loss, its parts, gradient norm."""
        model.train()
        set_rate(self.optimiser, self.config.learning_rate * rate_factor(self.step, self.done, self.config))
        self.optimiser.zero_grad(set_to_none=True)
        interval = self.interval
        total, parts, ids = 0.0, dict[str, float](), list[str]()
        for turn in range(interval):
            batch = next(batches)
            ids += case_ids(batch)
            seed_all(self.config.seed, (self.step * interval + turn) * self.ranks.world + self.ranks.rank)
            last = turn == interval - 1
            with nullcontext() if last or self.ranks.world == 1 else model.no_sync():  # type: ignore[operator]
                loss = self._backward(model, batch, last)
            total += float(loss.total.detach()) / interval
            for name, value in loss.parts.items():
                parts[name] = parts.get(name, 0.0) + float(value) / interval
        norm = self._clip(ids)
        self.optimiser.step()
        if self.average is not None and self.config.ema_decay is not None:
            update_average(self.average, self.network, self.step, self.config.ema_decay)
        return total, parts, norm

    def _backward(self, model: nn.Module, batch: B, last: bool) -> Any:
        looking = self.amp.measure() if self.amp.half_share is None and self.ranks.first else nullcontext()
        with looking, self.amp.autocast():
            loss = self.task.loss(model, moved(batch, self.ranks.device))
        self._check_finite("Loss", loss.total, case_ids(batch))
        with self.amp.scale_loss(loss.total / self.interval, self.optimiser, delay_unscale=not last) as scaled:
            scaled.backward()
        return loss

    def _clip(self, ids: Sequence[str]) -> float | None:
        if self.amp.helpless_steps >= HELPLESS_STEPS:
            raise self._not_finite("Gradient", ids)
        if self.amp.overflowed:
            return None
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        # Stopped before the weights and the next checkpoint are spoiled.
        self._check_finite("Gradient", norm, ids)
        return float(norm)

    def _check_finite(self, what: str, value: Tensor, ids: Sequence[str]) -> None:
        if not torch.isfinite(value):
            raise self._not_finite(what, ids)

    def _not_finite(self, what: str, ids: Sequence[str]) -> DataError:
        return DataError(f"{what} is not finite at step {self.step}{case_names(ids)}.")

    def _record(self, record: StepRecord) -> None:
        self._recent.append(record)
        for watcher in self.watchers:
            watcher(record)
        if self.config.validate_steps and self.step % self.config.validate_steps == 0 and self.done < 1:
            self._validate()
        if self.step % self.config.log_steps == 0 or self.done >= 1:
            self._note()

    def _validate(self) -> None:
        with torch.no_grad():
            figures = self.task.validate(self.result.eval(), self.step)
        if figures:
            self.journal.note(self._stamped({"step": self.step, "validation": figures}))
            self._tell("  ".join(f"{name} {value:.3f}" for name, value in figures.items()))

    def _note(self) -> None:
        entry = summarise(self._recent)
        self._recent = []
        entry |= {"learning_rate": self.optimiser.param_groups[0]["lr"], "amp": self.amp.report()}
        self.journal.note(self._stamped(entry))
        left = seconds_left(self.step, self.seconds, entry["seconds_per_step"], self.config)
        self._tell(f"step {self.step}/{self.config.max_steps}  loss {entry['loss']:.3f}  {left / 60:.0f} min left")

    def _stamped(self, entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"seconds": round(self.seconds, 3)}

    def _tell(self, message: str) -> None:
        if self.ranks.first:
            self.progress(Progress("train", self.done, message))

    def _save_or_say(self, *, final: bool) -> bool:
        """A checkpoint that cannot be written now is tried again later; the last one has to be."""
        try:
            self.save()
        except OutputError as error:
            if final:
                raise
            self._tell(f"{error} Training goes on; the checkpoint is tried again in a minute.")
            return False
        return True

    def save(self) -> None:
        """Write the checkpoint, by the first rank alone; what stops it is known to all, so that none waits for ever.

        Raises:
            OutputError: it could not be written.
        """
        failed = from_first(self._write() if self.ranks.first else None)
        if failed is not None:
            raise failed

    def _write(self) -> OutputError | None:
        self.journal.note(self._stamped({"step": self.step, "saved": True}))
        state = {"step": self.step, "max_steps": self.config.max_steps, "amp": self.amp.state_dict()}
        state |= {"settings": self._settings(), "batches_per_step": self.batches}
        try:
            save_checkpoint(self.folder / LAST, self._learner, state)
        except OutputError as error:
            return error
        self.saved = self.step
        return None


def _too_little_memory(step: int) -> ResourceError:
    return ResourceError(
        f"The GPU's memory does not suffice at step {step}.",
        advice="Take a smaller patch_size or batch_size, or the option recompute of Optimized3DUNet.",
    )
