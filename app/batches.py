"""Batches that visitors at this computer start: many studies of a folder, watched from the page."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.paths import path_of, there
from app.studies import Problem, Refused
from medseg.errors import Cancelled, MedsegError
from medseg.exports import parse_formats
from medseg.jobs.batch import run_batch
from medseg.jobs.manifest import ManifestRow, read_manifest
from medseg.jobs.report import BatchProgress
from medseg.jobs.studies import find_studies


@dataclass(frozen=True)
class BatchRow:
    """One study of a batch."""

    study: str
    path: Path
    state: str
    seconds: float
    message: str
    advice: str
    error: str
    model: str
    series: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BatchView:
    """A batch at one moment.

    Attributes:
        state: 'running', 'done', 'stopped' or 'failed'.
        total: studies that were found.
        rows: those that are over.
        running: name and share (0 ... 1) of those under way.
        seconds_left: None while there is nothing to go by.
        skipped: what was found and is no study, with the reason.
    """

    out: Path
    state: str
    total: int
    rows: tuple[BatchRow, ...]
    running: tuple[tuple[str, float], ...]
    seconds_left: float | None
    skipped: tuple[tuple[str, str], ...]
    problem: Problem | None = None


class _Batch:
    """A batch in a thread of its own; its work runs in processes."""

    def __init__(self, source: Path, out: Path, model: str, formats: str) -> None:
        self.source, self.out, self.model, self.formats = source, out, model, formats
        self.stop = threading.Event()
        self.moment: BatchProgress | None = None
        self.skipped: list[tuple[str, str]] = []
        self.problem: Problem | None = None
        self.state = "running"
        self.thread = threading.Thread(target=self._run, name="batch", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            studies = find_studies(self.source, exclude=[self.out], report=self._skip)
            report = run_batch(
                studies, self.out, model=self.model, progress=self._show, formats=parse_formats(self.formats)
            )
            self.state = "stopped" if report.interrupted else "done"
        except MedsegError as error:
            self.problem, self.state = Problem(error.message, error.advice, code=type(error).__name__), "failed"

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.append((path.name, reason))

    def _show(self, moment: BatchProgress) -> None:
        self.moment = moment
        if self.stop.is_set():
            raise Cancelled

    def view(self) -> BatchView:
        moment = self.moment
        return BatchView(
            out=self.out,
            state=self.state,
            total=moment.total if moment else 0,
            rows=tuple(map(_row, moment.rows)) if moment else (),
            running=tuple((study, now.fraction) for study, now in moment.running) if moment else (),
            seconds_left=moment.seconds_left if moment else None,
            skipped=tuple(self.skipped),
            problem=self.problem,
        )


class Batches:
    """The batches of this server, by their output folder. For visitors who may name paths, and for nobody else."""

    def __init__(self) -> None:
        self._batches: dict[Path, _Batch] = {}
        self._lock = threading.Lock()

    def start(self, source: Path, out: Path, model: str, formats: str = "") -> Path:
        """Begin a batch; its output folder names it from now on.

        Raises:
            Refused: the source is not there, `out` cannot be, or a batch writes into it already.
        """
        source, out = there(source).resolve(), path_of(out).resolve()
        with self._lock:
            earlier = self._batches.get(out)
            if earlier is not None and earlier.state == "running":
                raise Refused(Problem(f"{out} is in use by another batch.", "Wait for it to end.", code="OutputError"))
            self._batches[out] = _Batch(source, out, model, formats)
        return out

    def view(self, out: Path) -> BatchView | None:
        """How a batch stands; one of an earlier day is read from its manifest. None where there is neither."""
        with self._lock:
            batch = self._batches.get(out)
        if batch is not None:
            return batch.view()
        try:
            rows = read_manifest(out)
        except MedsegError as error:
            problem = Problem(error.message, error.advice, code=type(error).__name__)
            return BatchView(out, "failed", 0, (), (), None, (), problem)
        return BatchView(out, "done", len(rows), tuple(map(_row, rows)), (), None, ()) if rows else None

    def known(self) -> Sequence[Path]:
        """Output folders of the batches of this server, newest first."""
        with self._lock:
            return list(reversed(self._batches))

    def cancel(self, out: Path) -> None:
        """Stop a batch; what is finished stays, and the same batch goes on where it stopped."""
        with self._lock:
            batch = self._batches.get(out)
        if batch is not None:
            batch.stop.set()

    def close(self) -> None:
        """Stop all."""
        with self._lock:
            running = list(self._batches.values())
        for batch in running:
            batch.stop.set()
        for batch in running:
            batch.thread.join(10)


def _row(row: ManifestRow) -> BatchRow:
    return BatchRow(
        study=row.study,
        path=Path(row.path),
        state=row.status,
        seconds=row.seconds,
        message=row.message,
        advice=row.advice,
        error=row.error,
        model=row.model,
        series=row.series or None,
        notes=row.findings,
    )
