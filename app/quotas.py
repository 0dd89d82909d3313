"""How much one server takes in: studies at a time, bytes altogether, and jobs that wait. Above that it is busy."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What one server keeps; each can be set by an environment variable of its name in capitals (MEDSEG_MAX_...).

    Attributes:
        max_studies: folders at a time.
        max_gigabytes: of all folders together.
        max_waiting: jobs in the queue.
        max_starts_per_minute: studies begun in a minute, by all visitors together.
        min_free_gigabytes: what has to stay free on the disk.
    """

    max_studies: int = 200
    max_gigabytes: float = 100.0
    max_waiting: int = 64
    max_starts_per_minute: int = 60
    min_free_gigabytes: float = 1.0

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """From the environment; what is no number there is left as it is."""
        found = {}
        for name, kind in (("max_studies", int), ("max_gigabytes", float), ("max_waiting", int),
                           ("max_starts_per_minute", int), ("min_free_gigabytes", float)):  # fmt: skip
            text = environment.get(f"MEDSEG_{name.upper()}", "")
            try:
                found[name] = kind(text)
            except ValueError:
                continue
        return cls(**found)  # type: ignore[arg-type]


@dataclass
class Quota:
    """Counts what the server holds against its limits. Thread-safe."""

    root: Path
    limits: Limits = field(default_factory=Limits.of)

    def __post_init__(self) -> None:
        self._starts: deque[float] = deque()
        self._lock = threading.Lock()

    def refusal(self, waiting: int, bytes_more: int = 0) -> str:
        """Which limit a further study would break: 'studies', 'space', 'queue' or 'rate'; '' for none.

        Args:
            waiting: jobs in the queue.
            bytes_more: size of what is handed in.
        """
        if waiting >= self.limits.max_waiting:
            return "queue"
        folders = [path for path in self.root.iterdir() if path.is_dir()]
        if len(folders) >= self.limits.max_studies:
            return "studies"
        held = sum(size_of(folder) for folder in folders)
        free = shutil.disk_usage(self.root).free - bytes_more
        if held + bytes_more > self.limits.max_gigabytes * 2**30 or free < self.limits.min_free_gigabytes * 2**30:
            return "space"
        return "" if self._counts() else "rate"

    def _counts(self) -> bool:
        """Count a start, unless there were too many within the last minute."""
        with self._lock:
            now = time.monotonic()
            while self._starts and now - self._starts[0] > 60:
                self._starts.popleft()
            if len(self._starts) >= self.limits.max_starts_per_minute:
                return False
            self._starts.append(now)
            return True


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total
