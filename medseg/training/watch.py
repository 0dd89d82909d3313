"""Ranks watch each other: one that dies or stands still ends the run within a minute, with its cause.

A collective only says that something is wrong, or waits. Here every rank leaves a sign of life in the store through
which the ranks met, from a thread of its own, and looks for the others'. A process that lives while its main thread
hangs, on a dead network disk for example, keeps giving signs: that one ends the run when a collective gives up.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import torch.distributed as dist

from medseg.errors import WorkerError
from medseg.training.distributed import Ranks, of_collective

BEAT_S = 1.0
PATIENCE_S = 30.0
SUSPICION_S = 5.0  # once a collective has failed, somebody is gone
_LEFT = "left"
_runs = itertools.count()  # all ranks count alike


class Watch:
    """Signs of life among the ranks; with one rank nothing happens.

    Args:
        ranks: who takes part.
        patience_s: a rank that is silent for longer counts as dead.
        give_up: called with the cause where the main thread hangs; ends the process by default.
    """

    def __init__(
        self, ranks: Ranks, patience_s: float = PATIENCE_S, give_up: Callable[[str], None] | None = None
    ) -> None:
        self.ranks, self.patience_s = ranks, patience_s
        self.step = 0
        self._give_up = give_up or _end_process
        self._over = threading.Event()
        self._cause = ""
        if ranks.world > 1:
            # Of every run in this process its own signs, and of every restart by torchrun.
            met = dist.distributed_c10d._get_default_store()
            self._store = dist.PrefixStore(f"watch-{next(_runs)}", met)  # type: ignore[attr-defined]
            self._seen = {rank: (b"", time.monotonic()) for rank in range(ranks.world) if rank != ranks.rank}
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """This rank has ended well."""
        if self.ranks.world > 1 and not self._over.is_set():
            self._leave(_LEFT)
            self._thread.join()

    def failed(self, error: Exception) -> Exception:
        """Tell the others why this rank ends; returns what to raise.

        Where a collective failed, that is a sentence about the rank which is gone.
        """
        if self.ranks.world == 1 or self._over.is_set():
            return error
        if of_collective(error):
            self.patience_s = min(self.patience_s, SUSPICION_S)
            until = time.monotonic() + self.patience_s + 3 * BEAT_S
            while not self._cause and time.monotonic() < until:
                time.sleep(BEAT_S / 10)
        self._leave(self._cause or f"Rank {self.ranks.rank} ended at step {self.step}: {error}")
        return WorkerError(self._cause, advice="Go on with --resume.") if self._cause else error

    def _leave(self, state: str) -> None:
        self._over.set()
        with suppress(RuntimeError):
            self._store.set(f"state/{self.ranks.rank}", state)

    def _watch(self) -> None:
        beat = 0
        while not self._cause and not self._over.wait(BEAT_S):
            beat += 1
            try:
                self._store.set(f"beat/{self.ranks.rank}", f"{self.step} {beat}")
                self._cause = next(filter(None, map(self._look, list(self._seen))), "")
            except RuntimeError:
                self._cause = "The process that keeps the ranks together (rank 0, or torchrun) is gone."
        # The main thread raises the cause when its collective fails; one that hangs never would.
        if self._cause and not self._over.wait(5 * BEAT_S):
            self._give_up(self._cause)

    def _look(self, rank: int) -> str:
        """Why the run cannot go on, as far as `rank` is concerned; empty while it can."""
        if self._store.check([f"state/{rank}"]):
            state = self._store.get(f"state/{rank}").decode()
            del self._seen[rank]
            return "" if state == _LEFT else state
        sign = self._store.get(f"beat/{rank}") if self._store.check([f"beat/{rank}"]) else b""
        last, since = self._seen[rank]
        if sign != last:
            self._seen[rank] = (sign, time.monotonic())
        elif time.monotonic() - since > self.patience_s:
            step = sign.decode().split(" ")[0] or "0"
            return (
                f"Rank {rank} is gone or hangs: no sign of life for {self.patience_s:.0f} s, the last at step {step}."
            )
        return ""


def _end_process(cause: str) -> None:
    print(f"Error: {cause} Go on with --resume.", file=sys.stderr, flush=True)
    os._exit(WorkerError.exit_code)
