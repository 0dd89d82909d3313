"""How much memory there is for a process, before the system ends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

MB = 2**20
_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))  # version 2, version 1


def free_mb() -> float:
    """What this machine, or the container around this process, has left, MiB."""
    left = [max(0, limit - used) for limit, used in _limits()]
    return float(min([psutil.virtual_memory().available, *left]) / MB)


def total_mb() -> float:
    """What this machine, or the container around this process, has in all, MiB."""
    return float(min([psutil.virtual_memory().total, *(limit for limit, _ in _limits())]) / MB)


def _limits() -> Iterator[tuple[int, int]]:
    """Limit and use, bytes, of the control groups that hold this process: its own and all those above."""
    for group in _groups():
        for limit, used in _FILES:
            with suppress(OSError, ValueError):  # no such file, or no limit ("max")
                yield int((group / limit).read_text()), int((group / used).read_text()) - _given_back(group)


def _given_back(group: Path) -> int:
    """Bytes of files read once, which are counted as used and make room for whoever asks."""
    file = group / "memory.stat"
    found = dict(line.split() for line in file.read_text().splitlines()) if file.is_file() else {}
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _groups() -> Iterator[Path]:
    """Folders of this process's control groups. A container may see only the root of its own."""
    lines = _OWN.read_text().splitlines() if _OWN.is_file() else []
    for line in lines or ["0::/"]:
        _, kinds, place = line.split(":", 2)
        if kinds == "" or "memory" in kinds.split(","):
            root = _GROUPS / "memory" if kinds else _GROUPS
            own = root / place.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))
