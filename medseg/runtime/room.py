"""How much memory there is for a process, before the system ends it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

MB = 2**20
_GROUP = Path("/sys/fs/cgroup")


def free_mb() -> float:
    """What this machine, or the container around this process, has left, MiB."""
    left = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # no control group, or one without a limit ("max")
        left = min(left, max(0, _of_group("memory.max") - _of_group("memory.current")))
    return float(left / MB)


def total_mb() -> float:
    """What this machine, or the container around this process, has in all, MiB."""
    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):
        total = min(total, _of_group("memory.max"))
    return float(total / MB)


def _of_group(name: str) -> int:
    return int((_GROUP / name).read_text())
