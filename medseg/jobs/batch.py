"""Many studies into one folder: none wrong in silence, none computed twice, none half written.

    report = run_batch(find_studies(inputs, exclude=[out]), out, model="head-neck-oar")
    report.exit_code                     # 0 all fine, 3 some failed, 1 all failed, 130 interrupted

OUT holds a folder for each study and `manifest.json` / `manifest.csv`, which are complete after every study.
A second run computes what failed, what has changed (input, series, model, version of medseg) and what is damaged.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path

from medseg.errors import Cancelled, ConfigError, NoScanError, OutputError, WorkerError, showable
from medseg.imaging.emit import sha256_file
from medseg.jobs.folders import is_result, publish, set_aside, sweep
from medseg.jobs.lock import folder_lock
from medseg.jobs.manifest import MASK, Manifest, ManifestRow, fingerprint, identity, inventory, shown_path
from medseg.jobs.names import study_names
from medseg.jobs.report import BatchCallback, BatchProgress, BatchReport
from medseg.jobs.request import SEGMENT, Failure, JobRequest, Outcome, Work
from medseg.jobs.runner import run_study
from medseg.jobs.worker import Worker
from medseg.runtime.options import Options
from medseg.runtime.progress import Progress


def run_batch(
    studies: Sequence[Path],
    out: Path,
    *,
    model: str = "head-neck-oar",
    series: str | None = None,
    force: bool = False,
    workers: int = 1,
    progress: BatchCallback | None = None,
    work: Work = SEGMENT,
    options: Options | None = None,
    formats: Sequence[str] = (),
) -> BatchReport:
    """Segment studies into `out`, one folder each; a bad one does not stop the others.

    Ctrl-C ends it within some two seconds and returns a report that is `interrupted`. A `progress`
    that raises `Cancelled` does the same.

    Args:
        studies: files, zips or DICOM folders; the same one twice counts once.
        out: folder of the results and the manifest.
        model: name of the model.
        series: number or UID of the series, where studies hold several.
        force: compute again what is finished and unchanged.
        workers: number of processes; each wants the memory of a whole job.
        progress: called at every step, one call at a time, from threads of the batch.
        work: what the processes run.
        options: backend, precision, the limit of memory of one process, a localiser.
        formats: further files of every result, see `medseg.exports`.

    Raises:
        NoScanError: there are no studies.
        ConfigError: `workers` is less than one, or `out` lies inside a study.
        ModelError: the model cannot be used.
        OutputError: `out` cannot be written or is no UTF-8, its manifest is damaged, or another batch is using it.
    """
    options = options or Options()
    unique = _different(studies)
    _check(unique, out, workers)
    module, _, function = work.identify.partition(":")
    identify = getattr(import_module(module), function)
    # A localiser decides where the model looks: with another one the work is another.
    digest = " ".join(identify(name) for name in (model, options.localiser) if name is not None)
    task = ManifestRow("", "", "done", series=series or "", model=model, model_sha256=digest, way=options.way)
    task = replace(task, formats=",".join(formats))
    with folder_lock(out):
        manifest = _recovered(out)
        batch = _Batch(manifest, _plan(unique, manifest, task), progress or _quiet, work, workers, options)
        return batch.run(force)


def _quiet(_: BatchProgress) -> None: ...


def _different(studies: Sequence[Path]) -> list[Path]:
    first: dict[str, Path] = {}
    for path in studies:
        first.setdefault(identity(path), Path(os.path.abspath(path)))
    return list(first.values())


def _check(studies: Sequence[Path], out: Path, workers: int) -> None:
    if not studies:
        raise NoScanError(out, "there are no studies to segment.")
    if workers < 1:
        raise ConfigError(f"workers is {workers}.", advice="At least one has to work.")
    if showable(str(out)) != str(out):  # SimpleITK, which reads every mask back, ends the process over such a path
        raise OutputError(f"{out} is no UTF-8: masks cannot be verified there.", advice="Choose another output folder.")
    for study in studies:
        if study.is_dir() and out.resolve().is_relative_to(study.resolve()):
            raise ConfigError(f"{out} lies inside the study {study}.", advice="Choose another output folder.")


def _recovered(out: Path) -> Manifest:
    """The manifest, after finishing what a killed batch had computed but not yet renamed, and removing its rest."""
    manifest = Manifest(out)
    settled = []
    for row in (row for row in manifest if row.part):
        if (out / row.part).is_dir():
            publish(out / row.part, out / row.study, row.files)
        settled.append(replace(row, part=""))
    sweep(out)
    manifest.put(settled)
    return manifest


@dataclass(frozen=True)
class _Task:
    """A study with the row that it gets when all goes well, and the row that it has."""

    source: Path
    row: ManifestRow
    before: ManifestRow | None


def _plan(studies: Sequence[Path], manifest: Manifest, task: ManifestRow) -> list[_Task]:
    rows = [replace(task, path=shown_path(path), fingerprint=fingerprint(path)) for path in studies]
    known = _known_names(studies, rows, manifest)
    names = study_names(studies, known=known, taken=[row.study for row in manifest])
    return [
        _Task(path, replace(row, study=name), manifest.get(name))
        for path, row, name in zip(studies, rows, names, strict=True)
    ]


def _known_names(studies: Sequence[Path], rows: Sequence[ManifestRow], manifest: Manifest) -> dict[Path, str]:
    """Names of the studies that had one before; one that was moved since keeps it."""
    names = {identity(Path(row.path)): row.study for row in manifest}
    known = {path: names[identity(path)] for path in studies if identity(path) in names}
    # A path that is no UTF-8 stands escaped in its row: it seems to be gone, though its study may be among these.
    held = set(known.values())
    gone = (row for row in manifest if row.study not in held and not Path(row.path).exists())
    moved = {row.fingerprint: row.study for row in gone}
    for path, row in zip(studies, rows, strict=True):
        if path not in known and row.fingerprint in moved:
            known[path] = moved.pop(row.fingerprint)
    return known


class _Batch:
    """One run over planned tasks. `run` belongs to the calling thread, everything else to the lanes."""

    def __init__(
        self,
        manifest: Manifest,
        tasks: Sequence[_Task],
        progress: BatchCallback,
        work: Work,
        workers: int,
        options: Options,
    ) -> None:
        self.manifest, self.tasks, self.progress, self.work = manifest, tasks, progress, work
        self.lanes = min(workers, len(tasks))
        self.options = replace(options, neighbours=max(1, self.lanes))
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        self._rows: list[ManifestRow] = []
        self._running: dict[str, Progress] = {}
        self._started_s = 0.0

    def run(self, force: bool) -> BatchReport:
        for task in self.tasks:
            if task.before is not None and not force and self._is_unchanged(task, task.before):
                self._rows.append(replace(task.before, path=task.row.path, status="skipped-unchanged"))
            else:
                self._waiting.append(task)
        self.manifest.put(self._rows)
        self._started_s = time.monotonic()
        self._show()
        interrupted = self._compute() if self._waiting else False
        return BatchReport(self.manifest.out, tuple(self._rows), len(self.tasks), interrupted or self.stop.is_set())

    def _is_unchanged(self, task: _Task, row: ManifestRow) -> bool:
        return row.finished and row.same_task(task.row) and row.is_whole(self._place(task))

    def _place(self, task: _Task) -> Path:
        return self.manifest.out / task.row.study

    def _compute(self) -> bool:
        interrupted = False
        lanes: list[Future[None]] = []
        with ThreadPoolExecutor(self.lanes, thread_name_prefix="medseg-batch") as pool:
            try:
                lanes.extend(pool.submit(self._lane) for _ in range(self.lanes))
                wait(lanes)
            except KeyboardInterrupt:
                interrupted = True
                self.stop.set()
        for lane in lanes:
            lane.result()
        return interrupted

    def _lane(self) -> None:
        try:
            with Worker(self.work.run, threads=self._threads()) as worker:
                while not self.stop.is_set() and (task := self._next()) is not None:
                    self._study(worker, task)
        except BaseException:
            self.stop.set()  # the manifest cannot be written: no lane has a future
            raise

    def _threads(self) -> int | None:
        return None if self.lanes == 1 else max(1, len(os.sched_getaffinity(0)) // self.lanes)

    def _next(self) -> _Task | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _study(self, worker: Worker, task: _Task) -> None:
        row, formats = task.row, tuple(part for part in task.row.formats.split(",") if part)
        request = JobRequest(task.source, self._place(task), row.model, row.series or None, self.options, formats)
        watch = partial(self._step, task.row.study)
        watch(Progress("start", 0.0, "Starting."))
        announce = partial(self._announce, task)
        replaceable = task.before.files if task.before else {}
        outcome = run_study(worker, request, watch, self.stop, replaceable, announce)
        if outcome.failure is not None and outcome.failure.error == WorkerError.__name__:
            # Its process broke down. Once more in a fresh one; what breaks that as well is this study's own fault.
            outcome = run_study(worker, request, watch, self.stop, replaceable, announce)
        if outcome.status == "cancelled":
            return
        if outcome.failure is not None:
            row = self._failed(task, outcome.failure, outcome.seconds)
        else:
            row = replace(self.manifest[task.row.study], part="")
        self.manifest.put([row])
        self._end(row)

    def _announce(self, task: _Task, part: Path, outcome: Outcome) -> None:
        """Put the result on record before it appears, so that a kill between the two loses nothing."""
        verdict = str(outcome.result.get("verdict", ""))
        row = replace(task.row, seconds=outcome.seconds, findings=tuple(outcome.result.get("findings", ())))
        files, mask = inventory(part), sha256_file(part / MASK)
        row = replace(row, verdict=verdict, files=files, mask_sha256=mask, part=part.name)
        self.manifest.put([replace(row, kept=self._keep(task))])

    def _keep(self, task: _Task) -> str:
        """Move an earlier result in which somebody has worked, such as a corrected mask, out of the new one's way."""
        before, place = task.before, self._place(task)
        if before is None or not (is_result(place, before.files) and before.is_touched(place)):
            return ""
        aside = set_aside(place)
        return "" if aside is None else aside.name

    def _failed(self, task: _Task, why: Failure, seconds: float) -> ManifestRow:
        before, place = task.before, self._place(task)
        if before is not None and before.finished and is_result(place, before.files):
            set_aside(place)  # the result of another input or model must not pass for this one's
        row = replace(task.row, status="failed", seconds=seconds)
        return replace(row, error=why.error, message=why.message, advice=why.advice)

    def _step(self, study: str, progress: Progress) -> None:
        with self._lock:
            self._running[study] = progress
        self._show()

    def _end(self, row: ManifestRow) -> None:
        with self._lock:
            self._running.pop(row.study, None)
            self._rows.append(row)
        self._show()

    def _show(self) -> None:
        with self._lock:
            try:
                self.progress(
                    BatchProgress(
                        len(self.tasks), tuple(self._rows), tuple(self._running.items()), self._seconds_left()
                    )
                )
            except Cancelled:
                self.stop.set()

    def _seconds_left(self) -> float | None:
        computed = sum(row.status != "skipped-unchanged" for row in self._rows)
        share = computed + sum(progress.fraction for progress in self._running.values())
        remaining = len(self.tasks) - len(self._rows) + computed - share
        return (time.monotonic() - self._started_s) / share * remaining if share else None
