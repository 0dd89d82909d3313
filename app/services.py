"""The desk: takes scans in, hands work to processes, and tells how things stand. Knows no streamlit.

One desk a server. Scans and results lie in private folders (`app.folders`), everything that opens a scan or
computes runs in processes of its own (`app.work` behind `medseg.jobs`), and every question names the visitor who
asks: a study is there for the browser that brought it and for nobody else.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.corrections import Corrections
from app.entries import Entry, Run, first_picture_of, problem_of
from app.errands import Errands
from app.folders import KEEP_HOURS, WorkFolders
from app.imports import Imports
from app.paths import there
from app.quotas import Quota
from app.results import Result, accepted_in, read_result
from app.scans import Scan, read_scan
from app.studies import RunView, StudyView, refused
from app.text import say
from app.uploads import Upload, size_of, store, strip_ending
from medseg.errors import OutputError
from medseg.examples import example_path
from medseg.jobs.queue import Job, JobQueue
from medseg.jobs.request import JobRequest
from medseg.runtime.options import Options

_SWEEP_S = 600.0
_LET_GO_S = 60.0
_GLANCE_S = 0.03


class Desk:
    """See the module's description.

    Args:
        parent: where the private folders lie; the system's temporary folder by default.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self.folders = WorkFolders(parent)
        self.quota = Quota(self.folders.root)
        self.readers = JobQueue(work="app.work.look:look")
        self.segmenters = JobQueue(work="app.work.segment:segment")
        self.helpers = JobQueue(work="app.work.tasks:run")
        self._studies: dict[str, Entry] = {}
        self.errands = Errands(self)
        self.corrections = Corrections(self)
        self.imports = Imports(self)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        threading.Thread(target=self._sweep, name="sweep", daemon=True).start()

    def warm_up(self) -> None:
        """Start the reading process before the first scan arrives."""
        out = self.folders.root / self.folders.new() / "warm"
        self.readers.submit(JobRequest(out, out, extra={"warm": True}))

    def take_uploads(self, uploads: Sequence[Upload], visitor: str) -> str:
        """Copy uploaded files into a new private folder, under names of our own; the study's id.

        Raises:
            Refused: the disk is full, or the server is busy.
        """
        study = self._new_study(sum(map(size_of, uploads)))
        try:
            source = store(uploads, self.folders.root / study / "input")
        except (OSError, OutputError) as error:
            self.folders.remove(study)
            raise refused("space", reason=_reason(error)) from error
        shown = uploads[0].name if len(uploads) == 1 else say("intake.several", count=len(uploads))
        return self._begin(study, visitor, strip_ending(shown), source, shown)

    def _new_study(self, bytes_more: int = 0) -> str:
        if limit := self.quota.refusal(self._waiting(), bytes_more):
            raise refused(f"busy.{limit}")
        return self.folders.new()

    def _waiting(self) -> int:
        return sum(job.state == "queued" for queue in self._queues() for job in queue.jobs())

    def take_path(
        self, path: Path, visitor: str, title: str = "", *, series: str | None = None, accept: str = ""
    ) -> str:
        """Begin a study with a scan that lies on the server already; it is read and left alone.

        Raises:
            Refused: nothing is there.
        """
        path = there(path)
        title = title or strip_ending(path.name)
        return self._begin(self._new_study(), visitor, title, path, path.name, series=series, accept=accept)

    def take_example(self, visitor: str) -> str:
        """Begin a study with the shipped example.

        Raises:
            Refused: it is not installed.
        """
        if not example_path().exists():
            raise refused("example")
        return self.take_path(example_path(), visitor, say("intake.example.name"))

    def take_result(self, path: Path, folder: Path, visitor: str, model: str, series: str | None = None) -> str:
        """Begin a study with a scan and a finished result of it (a batch's): it opens in the viewer as any other.

        Raises:
            Refused: the scan or the result is not there.
        """
        study = self.take_path(path, visitor, folder.name, series=series, accept=accepted_in(folder))
        extra = {"task": "open", "result": str(folder)}
        self.add_run(study, visitor, model, corrected=False, queue=self.helpers, extra=extra)
        return study

    def _begin(
        self,
        study: str,
        visitor: str,
        title: str,
        source: Path,
        shown: str,
        *,
        series: str | None = None,
        accept: str = "",
    ) -> str:
        folder = self.folders.root / study / f"scan-{secrets.token_hex(4)}"
        extra = {"first": str(first_picture_of(folder))}
        options = Options(accept=accept)
        look = self.readers.submit(JobRequest(source, folder, series=series, options=options, extra=extra))
        self._put(study, Entry(visitor, title, source, shown, look, folder, series, accept))
        return study

    def choose_series(self, study: str, visitor: str, series: str) -> None:
        """Read another series of the same files; results of the earlier one are forgotten."""
        self._read_again(study, visitor, series=series)

    def accept(self, study: str, visitor: str, reason: str) -> None:
        """Read what was refused as no CT or no Hounsfield units all the same; the reason stays on record.

        Raises:
            Refused: there is no reason in what was written.
        """
        if not reason.strip():
            raise refused("reason")
        self._read_again(study, visitor, accept=reason.strip())

    def _read_again(self, study: str, visitor: str, **changes: Any) -> None:
        """Read the same files in another way."""
        entry = replace(self.entry(study, visitor), **changes)
        for job in (entry.look, *self.errands.take_back(study), *(run.job for run in entry.runs)):
            job.cancel()
        files = entry.title, entry.source, entry.shown_name
        self._begin(study, visitor, *files, series=entry.series, accept=entry.accept)

    def run(self, study: str, visitor: str, model: str) -> int:
        """Queue the study's scan for a model; the number of the run.

        Raises:
            Refused: too many are waiting.
        """
        if self._waiting() >= self.quota.limits.max_waiting:
            raise refused("busy.queue")
        forecast = self.errands.known_forecast(study, visitor, model)
        with self._lock:
            number = len(self.entry(study, visitor).runs) + 1
            extra = {"forecast_s": forecast, "preview": str(self.preview_folder(study, number))}
            return self.add_run(study, visitor, model, corrected=False, queue=self.segmenters, extra=extra)

    def add_run(
        self, study: str, visitor: str, model: str, *, corrected: bool, queue: JobQueue, extra: Mapping[str, Any]
    ) -> int:
        """Queue work that ends in a result of the study; the number of the run."""
        with self._lock:
            entry = self.entry(study, visitor)
            number = len(entry.runs) + 1
            out = self.run_folder(study, number)
            job = queue.submit(entry.request(out, model=model, extra=extra))
            self._put(study, replace(entry, runs=(*entry.runs, Run(number, model, corrected, job))))
            return number

    def cancel(self, study: str, visitor: str, number: int) -> None:
        """Stop a run that waits or goes on; the others are left alone."""
        for run in self.entry(study, visitor).runs:
            if run.number == number:
                run.job.cancel()

    def forget(self, study: str, visitor: str) -> None:
        """Stop the study, and delete its scan and its results."""
        if self._owned(study, visitor) is not None:
            self._forget(study)

    def _forget(self, study: str) -> None:
        with self._lock:
            entry = self._studies.pop(study, None)
        self.corrections.take_back(study)
        jobs = [*self.errands.take_back(study), *([entry.look, *[run.job for run in entry.runs]] if entry else [])]
        for job in jobs:
            job.cancel()
        # A job that still runs would write into the folder that is being deleted.
        threading.Thread(target=self._remove, args=(study, jobs)).start()

    def _remove(self, study: str, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.wait(_LET_GO_S)
        self.folders.remove(study)

    def view(self, study: str, visitor: str) -> StudyView:
        """How a study stands; 'gone' where it was deleted, never was, or is another visitor's."""
        entry = self._owned(study, visitor)
        if entry is None:
            return StudyView(study, "gone")
        self.folders.touch(study)
        look = entry.look.status
        scan = read_scan(entry.scan_folder) if look.state == "done" else None
        phase = {"done": "read", "failed": "unreadable", "cancelled": "gone"}.get(look.state, "reading")
        return StudyView(
            study,
            phase,  # type: ignore[arg-type]
            entry.title,
            look.stage,
            problem_of(entry, look.error) if look.error else None,
            scan,
            tuple(self._run_view(study, entry, run) for run in entry.runs),
        )

    def first_picture(self, study: str, visitor: str) -> Path | None:
        """The PNG that is shown until the viewer has loaded; None while there is none."""
        entry = self._owned(study, visitor)
        path = None if entry is None else first_picture_of(entry.scan_folder)
        return path if path is not None and path.is_file() else None

    def await_reading(self, study: str, visitor: str, patience_s: float, *, or_picture: bool = False) -> None:
        """Return once the scan is read, or (`or_picture`) can be seen; at the latest after `patience_s`."""
        entry, deadline = self._owned(study, visitor), time.monotonic() + patience_s
        while entry is not None and time.monotonic() < deadline and not entry.look.wait(_GLANCE_S):
            if or_picture and first_picture_of(entry.scan_folder).is_file():
                return

    def _run_view(self, study: str, entry: Entry, run: Run) -> RunView:
        now, job = run.job.status, run.job  # one moment: its fields fit together
        return RunView(
            number=run.number,
            model=run.model,
            corrected=run.corrected,
            state=now.state,
            folder=self.run_folder(study, run.number),
            stage=now.stage,
            fraction=min(1.0, max(0.0, now.fraction)),
            before=self._before(job),
            seconds=job.seconds,
            problem=problem_of(entry, now.error) if now.error else None,
        )

    def studies(self, visitor: str) -> list[StudyView]:
        """All studies of a visitor, newest first."""
        with self._lock:
            own = [study for study, entry in self._studies.items() if entry.owner == visitor]
        return [self.view(study, visitor) for study in reversed(own)]

    def scan(self, study: str, visitor: str) -> Scan | None:
        """The scan that has been read."""
        entry = self._owned(study, visitor)
        return None if entry is None else read_scan(entry.scan_folder)

    def result(self, study: str, visitor: str, number: int) -> Result | None:
        """A finished run."""
        entry = self._owned(study, visitor)
        if entry is None or not any(run.number == number and run.job.state == "done" for run in entry.runs):
            return None
        return read_result(self.run_folder(study, number))

    def close(self) -> None:
        """Stop all jobs and delete all folders."""
        self._closed.set()
        for queue in self._queues():
            queue.close()
        self.folders.close()

    def _queues(self) -> tuple[JobQueue, ...]:
        return self.readers, self.segmenters, self.helpers

    def _owned(self, study: str, visitor: str) -> Entry | None:
        with self._lock:
            entry = self._studies.get(study)
        if entry is None or not visitor or entry.owner != visitor or self.folders.path(study) is None:
            return None
        return entry

    def entry(self, study: str, visitor: str) -> Entry:
        """The study of a visitor.

        Raises:
            Refused: there is none, for this visitor.
        """
        entry = self._owned(study, visitor)
        if entry is None:
            raise refused("gone")
        return entry

    def _put(self, study: str, entry: Entry) -> None:
        with self._lock:
            self._studies[study] = entry

    def run_folder(self, study: str, number: int) -> Path:
        """Where a run's result lies once it is done."""
        return self.folders.root / study / f"result-{number}"

    def preview_folder(self, study: str, number: int) -> Path:
        """Where the coarse result of a run lies while the full one is made."""
        return self.folders.root / study / f"preview-{number}"

    def preview(self, study: str, visitor: str, number: int) -> Result | None:
        """The coarse result of a run, where there is one."""
        folder = self.preview_folder(study, number)
        if self._owned(study, visitor) is None or not folder.is_dir():
            return None
        return read_result(folder)

    def _before(self, job: Job) -> int:
        running = sum(other.state == "running" for other in self.segmenters.jobs())
        return job.position - 1 + running if job.position else 0

    def _sweep(self) -> None:
        while not self._closed.wait(_SWEEP_S):
            for study in self.folders.expired(KEEP_HOURS):
                self._forget(study)


def _reason(error: OSError | OutputError) -> str:
    """The system's own words: those of an OutputError name a private folder."""
    cause = error.__cause__ if isinstance(error, OutputError) else error
    return str(getattr(cause, "strerror", None) or type(error).__name__)
