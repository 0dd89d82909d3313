"""TrainingProfiler: samples while training, and says in words what the steps wait for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psutil
import torch

from medseg.errors import ConfigError
from medseg.training.counters import COUNTERS, Closes, Counter, NotHereError, open_counter
from medseg.training.journal import StepRecord, read_lines

TIMELINE = "profile.jsonl"
LOADER_BOUND, COMPUTE_BOUND = 0.2, 0.1  # share of a step that waits for data: from here on, and up to here
IDLE_GPU = 0.5
Bottleneck = Literal["loader-bound", "compute-bound", "balanced", "launch-bound", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """What bounds the steps, by the share of their time that waited for a batch; the first step is left out."""

    bottleneck: Bottleneck
    waiting_share: float
    seconds_per_step: float
    steps: int
    text: str

    def to_json(self) -> dict[str, Any]:
        """What log and report keep."""
        return asdict(self)


class TrainingProfiler:
    """Samples a training; a watcher of `Trainer` and a context around its run.

    Usage::

        with TrainingProfiler(folder=run) as profiler:
            Trainer(..., watchers=[profiler]).run()
        print(profiler.verdict.text)

    Args:
        metrics: of 'gpu_util', 'mem_copy', 'ipc'; what this machine lacks stands in `missing`, with the reason.
        interval: seconds between two samples.
        folder: gets `profile.jsonl`, a sample a line; None keeps them in memory alone.
        workers: processes that prepare batches, for the advice.
        device: that trains: only its own GPU is read. None where that is not known: the first GPU, if there is one.

    Attributes:
        samples: one dict each: second, step, waiting_share, seconds_per_step, cpu_share, memory_mb and the metrics.
        missing: metric -> why it is not here.

    Raises:
        ConfigError: an unknown metric, or an interval that is not positive.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("gpu_util", "mem_copy", "ipc"),
        interval: float = 5,
        *,
        folder: Path | None = None,
        workers: int = 0,
        device: torch.device | None = None,
    ) -> None:
        if strangers := sorted(set(metrics) - set(COUNTERS)):
            raise ConfigError(f"No metric {', '.join(strangers)}; there are: {', '.join(COUNTERS)}.")
        if interval <= 0:
            raise ConfigError(f"interval: {interval} is not positive.")
        self.metrics, self.interval, self.workers, self.device = tuple(metrics), interval, workers, device
        self.samples: list[dict[str, Any]] = []
        self.missing: dict[str, str] = {}
        self._path = None if folder is None else folder / TIMELINE
        self._counters: dict[str, Counter] = {}
        self._records: list[StepRecord] = []
        self._sampled = 0
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        for metric in self.metrics:
            try:
                self._counters[metric] = open_counter(metric, self.device)
            except NotHereError as error:
                self.missing[metric] = str(error)
        self._began = time.perf_counter()
        self._own = psutil.Process()
        self._cpu = self._cpu_seconds(), time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._sample()
        for counter in self._counters.values():
            if isinstance(counter, Closes):
                counter.close()

    def __call__(self, record: StepRecord) -> None:
        """Take note of a step."""
        with self._lock:
            self._records.append(record)

    @property
    def verdict(self) -> Verdict:
        """What bounds the steps so far."""
        with self._lock:
            records = self._records[1:]  # the first one starts workers and warms caches
        return judge(records, self.workers, self._mean("gpu_util"))

    @property
    def peak_memory_mb(self) -> float:
        """The largest sample of this process and those that it started."""
        return max((float(sample["memory_mb"]) for sample in self.samples), default=0.0)

    def _mean(self, metric: str) -> float | None:
        values = [sample[metric] for sample in self.samples if sample.get(metric) is not None]
        return sum(values) / len(values) if values else None

    def _run(self) -> None:
        while not self._over.wait(self.interval):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            new, self._sampled = self._records[self._sampled :], len(self._records)
        seconds = sum(record.seconds for record in new)
        sample: dict[str, Any] = {
            "second": round(time.perf_counter() - self._began, 2),
            "step": new[-1].step if new else None,
            "waiting_share": round(sum(r.waited_s for r in new) / seconds, 4) if seconds else None,
            "seconds_per_step": round(seconds / len(new), 5) if new else None,
            "cpu_share": self._cpu_share(),
            "memory_mb": round(self._memory_mb(), 1),
        }
        for metric, counter in self._counters.items():
            value = counter()
            sample[metric] = None if value is None else round(value, 4)
        self.samples.append(sample)
        if self._path is not None:
            with suppress(OSError), self._path.open("a", encoding="utf-8") as file:  # a full disk stops no training
                file.write(json.dumps(sample) + "\n")

    def _family(self) -> list[psutil.Process]:
        return [self._own, *self._own.children(recursive=True)]

    def _cpu_seconds(self) -> float:
        total = 0.0
        for process in self._family():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def _cpu_share(self) -> float:
        """Of all processors, since the last sample."""
        (before, then), now = self._cpu, (self._cpu_seconds(), time.perf_counter())
        self._cpu = now
        return round(max(0.0, now[0] - before) / max(1e-9, now[1] - then) / (psutil.cpu_count() or 1), 4)

    def _memory_mb(self) -> float:
        total = 0
        for process in self._family():
            with suppress(psutil.Error):
                memory = process.memory_info()
                total += memory.rss - getattr(memory, "shared", 0)  # on Linux: maps of prepared cases, free to go
        return total / 2**20


def read_timeline(folder: Path) -> list[dict[str, Any]]:
    """The samples of a run; a last line that was cut off by a kill is left out."""
    return read_lines(folder / TIMELINE)


def judge(records: Sequence[StepRecord], workers: int = 0, gpu_util: float | None = None) -> Verdict:
    """What bounds these steps."""
    seconds = sum(record.seconds for record in records)
    if not records or seconds <= 0:
        return Verdict("unknown", 0.0, 0.0, len(records), "unknown: too few steps to tell what bounds them.")
    share = sum(record.waited_s for record in records) / seconds
    kind = _kind(share, gpu_util)
    text = f"{kind}: {share:.0%} of the step waits for data. {_advice(kind, workers)}"
    return Verdict(kind, round(share, 4), round(seconds / len(records), 6), len(records), text)


def _kind(share: float, gpu_util: float | None) -> Bottleneck:
    if share >= LOADER_BOUND:
        return "loader-bound"
    if gpu_util is not None and gpu_util < IDLE_GPU:
        return "launch-bound"
    return "compute-bound" if share <= COMPUTE_BOUND else "balanced"


def _advice(kind: Bottleneck, workers: int) -> str:
    if kind == "loader-bound":
        more = "Set loop.workers: batches are prepared in between." if not workers else "More loop.workers may help"
        return more if not workers else f"{more} where cores are idle ({workers} now), or fewer augmentations."
    if kind == "launch-bound":
        return "The GPU is idle for half of the time, though data are there: larger batches, or loop.compile."
    return "The network's own work decides: precision, patch, width or another device would change it."
