"""What a batch tells while it runs and when it is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import Cancelled
from medseg.jobs.manifest import ManifestRow
from medseg.runtime.progress import Progress


@dataclass(frozen=True)
class BatchProgress:
    """A moment of a batch.

    Attributes:
        total: number of studies.
        rows: those that are over, in the order of their end; the unchanged ones first.
        running: name and last progress of those under way.
        seconds_left: estimate from the studies computed so far; None while there is nothing to go by.
    """

    total: int
    rows: tuple[ManifestRow, ...]
    running: tuple[tuple[str, Progress], ...]
    seconds_left: float | None


BatchCallback = Callable[[BatchProgress], None]


@dataclass(frozen=True)
class BatchReport:
    """What became of a batch.

    Attributes:
        out: its folder.
        rows: one for each study that came to an end.
        total: number of studies that were asked for.
        interrupted: whether it was stopped by the user before the last one.
    """

    out: Path
    rows: tuple[ManifestRow, ...]
    total: int
    interrupted: bool = False

    @property
    def done(self) -> tuple[ManifestRow, ...]:
        """Computed now."""
        return tuple(row for row in self.rows if row.status == "done")

    @property
    def unchanged(self) -> tuple[ManifestRow, ...]:
        """Finished by an earlier run and still whole."""
        return tuple(row for row in self.rows if row.status == "skipped-unchanged")

    @property
    def failed(self) -> tuple[ManifestRow, ...]:
        return tuple(row for row in self.rows if row.status == "failed")

    @property
    def exit_code(self) -> int:
        """0 all fine, 3 some failed, 1 all failed, 130 interrupted."""
        if self.interrupted:
            return Cancelled.exit_code
        if not self.failed:
            return 0
        return 1 if len(self.failed) == self.total else 3
