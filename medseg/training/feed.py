"""Batches by number, prepared beside the network by worker processes, in order."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from medseg.errors import MedsegError, WorkerError
from medseg.training.distributed import ranks_here
from medseg.training.task import Task

MOST_WORKERS = 8


class _Numbered(Dataset[Any]):
    def __init__(self, task: Task[Any], seed: int) -> None:
        self.task, self.seed = task, seed

    def __getitem__(self, number: int) -> Any:
        seed_all(self.seed, number)
        try:
            return self.task.batch(number)
        except MedsegError as error:
            return error  # as a value: torch would put its traceback into the message


def seed_all(seed: int, number: int) -> None:
    """The same random numbers for `number`, whatever ran before: nothing needs to be remembered for a resumed run.

    A task should draw from its own generator; this catches what a library draws from the global ones.
    """
    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def _as_it_is(batch: Any) -> Any:
    return batch


def workers_for(wanted: int | str, device: torch.device) -> int:
    """How many processes prepare batches for a rank on `device`.

    A patch takes a core some 40 ms, a step a CPU a second and a GPU some 10 to 100 ms: one worker is enough for the
    former, and the latter gets the cores of its share of the computer, up to `MOST_WORKERS`.
    """
    if isinstance(wanted, int):
        return wanted
    if device.type == "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // ranks_here() - 1))


class Feed:
    """Iterates over the batches of `numbers`.

    Args:
        task: makes them.
        numbers: which batches, in order.
        seed: of the run.
        workers: processes that prepare batches; 0 prepares each when it is asked for.

    Attributes:
        waited_s: how long the network has waited for batches so far.
    """

    def __init__(self, task: Task[Any], numbers: Sequence[int], seed: int, workers: int) -> None:
        self.waited_s = 0.0
        self._loader = DataLoader(
            _Numbered(task, seed),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            collate_fn=_as_it_is,
            prefetch_factor=3 if workers else None,
        )

    def __iter__(self) -> Iterator[Any]:
        began = time.perf_counter()
        batches = iter(self._loader)  # starts the workers, which the network waits for, too
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited_s += time.perf_counter() - began
            if isinstance(batch, MedsegError):
                raise batch
            yield batch
            began = time.perf_counter()


def worker_ended(error: Exception) -> WorkerError | None:
    """The end of a process that prepares batches, in words; None for any other error.

    torch raises it wherever the main thread is at that moment, in the midst of a step most likely.
    """
    if not (isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error)):
        return None  # raised in a worker, not by its end
    return WorkerError(
        f"A process that prepares training batches ended by itself: {str(error).splitlines()[0]}",
        advice="Too little memory, most likely: set loop.workers to 0, or close other programs.",
    )
