"""How much memory a process may still take before the system ends it."""

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
        limit, used = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        left = min(left, max(0, limit - used))
    return float(left / MB)
