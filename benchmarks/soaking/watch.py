"""What the server takes while it is visited: memory, disk, waiting studies; and the picture of it."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from app.quotas import size_of
from benchmarks.soaking.visits import Guests, Visit

STEP_S = 2.0
WARM_SHARE = 0.25
BOUND = 1.25


@dataclass(frozen=True)
class Sample:
    """The server at one moment, in seconds since the doors opened."""

    at_s: float
    server_mb: float
    all_mb: float
    disk_mb: float
    waiting: int


def watch(server: psutil.Process, folder: Path, guests: Guests, threads: list[threading.Thread]) -> list[Sample]:
    """Until the last visitor has left."""
    began, found = time.monotonic(), []
    while any(thread.is_alive() for thread in threads):
        with contextlib.suppress(psutil.Error):
            found.append(sample(server, folder, len(guests.waiting), time.monotonic() - began))
        time.sleep(STEP_S)
    return found


def sample(server: psutil.Process, folder: Path, waiting: int, at_s: float) -> Sample:
    """The server's own process, that with all its workers (what they share is counted once), and its files."""
    own = server.memory_info().rss
    workers = 0
    for child in server.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            workers += child.memory_full_info().uss
    return Sample(round(at_s, 1), own / 2**20, (own + workers) / 2**20, size_of(folder) / 2**20, waiting)


def memory(samples: list[Sample]) -> dict[str, Any]:
    """First and last fifth after the warm-up, the most, and the trend; bounded: the last is at most a quarter more."""
    found: dict[str, Any] = {}
    for name in ("server_mb", "all_mb", "disk_mb"):
        at, values = (np.array([getattr(one, key) for one in samples]) for key in ("at_s", name))
        warm = at >= WARM_SHARE * at[-1] if len(at) else at
        at, values = at[warm], values[warm]
        fifth = max(1, len(values) // 5)
        slope = np.polyfit(at / 3600, values, 1)[0] if len(values) > 2 else 0.0
        found[name] = {
            "after warm-up": round(float(np.median(values[:fifth])), 1),
            "at the end": round(float(np.median(values[-fifth:])), 1),
            "most": round(float(max(getattr(one, name) for one in samples)), 1),
            "trend per hour": round(float(slope), 1),
        }
    server = found["server_mb"]
    return found | {"is_bounded": server["at the end"] <= BOUND * server["after warm-up"]}


def over_time(samples: list[Sample], minutes: float) -> list[dict[str, float]]:
    """One line a minute."""
    lines = []
    for minute in range(int(minutes) + 1):
        near = min(samples, key=lambda one: abs(one.at_s - 60 * minute), default=None)
        if near is not None and abs(near.at_s - 60 * minute) < 30:
            lines.append({"minute": minute, "server_mb": round(near.server_mb), "all_mb": round(near.all_mb),
                          "disk_mb": round(near.disk_mb, 1), "waiting": near.waiting})  # fmt: skip
    return lines


def draw(path: Path, samples: list[Sample], visits: list[Visit], opened: float, title: str) -> None:
    """Memory above, queue below, over the same minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    minutes = [one.at_s / 60 for one in samples]
    above.plot(minutes, [one.all_mb for one in samples], label="with workers", color="#7a9cc6")
    above.plot(minutes, [one.server_mb for one in samples], label="page's own process", color="#1f4e8c")
    above.set_ylabel("memory, MB")
    above.set_ylim(bottom=0)
    above.legend(loc="center right", frameon=False)
    above.set_title(title, loc="left", fontsize=10)
    below.step(minutes, [one.waiting for one in samples], color="#b9b9b9", label="studies that wait")
    asked = [(one.handed_in + one.asked_s - opened, one.began_s - one.asked_s)
             for one in visits if one.asked_s is not None and one.began_s is not None]  # fmt: skip
    below.plot([at / 60 for at, _ in asked], [s for _, s in asked], ".", color="#c0504d", label="seconds in the queue")
    below.set_xlabel("minutes")
    below.set_ylim(bottom=0)
    below.legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=110)
