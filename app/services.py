"""What the page asks of medseg: the only file of the page that imports it. Knows no streamlit.

The page holds one `Desk` per server. Scans and results lie in private folders (`app.folders`), jobs run in
processes of their own (`medseg.jobs`), and the page reads nothing but the small frozen types below.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

import medseg
from app.folders import KEEP_HOURS, WorkFolders
from app.pictures import find_middles
from app.quotas import Quota
from app.results import PICTURES, Result, read_result
from app.text import say
from medseg.errors import MedsegError
from medseg.examples import example_path
from medseg.imaging.emit import emit, emit_json
from medseg.imaging.volume import reorient
from medseg.jobs.queue import Job, JobQueue
from medseg.jobs.request import Failure, JobRequest
from medseg.runtime.progress import Progress, ProgressCallback

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".zip", ".dcm")
_SWEEP_S = 600.0
_LET_GO_S = 60.0
State = Literal["queued", "running", "done", "failed", "cancelled", "gone"]


class Upload(Protocol):
    """What a browser hands in: a name that is never used as a path, and bytes to read."""

    name: str

    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class Model:
    """An installed model, in words."""

    name: str
    version: str
    title: str
    description: str
    field: str
    limits: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """What went wrong and the way out; `series` holds the choices where a choice is the way out."""

    message: str
    advice: str = ""
    series: tuple[str, ...] = ()


class Refused(Exception):  # noqa: N818 - the desk's word for it
    """The page cannot begin with this; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True)
class Status:
    """A moment of a study's job."""

    state: State
    title: str = ""
    model: str = ""
    stage: str = ""
    fraction: float = 0.0
    before: int = 0
    seconds: float = 0.0
    problem: Problem | None = None


@dataclass(frozen=True)
class _Study:
    title: str
    source: Path
    shown_name: str
    model: str = ""
    job: Job | None = None


class Desk:
    """Takes scans in, hands them to the job queue, and hands the results out.

    Args:
        parent: where the private folders lie; the system's temporary folder by default.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self.folders = WorkFolders(parent)
        self.quota = Quota(self.folders.root)
        self.queue = JobQueue(work="app.services:segment_for_page")
        self._studies: dict[str, _Study] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._sweep, name="sweep", daemon=True).start()

    def take_uploads(self, uploads: Sequence[Upload]) -> str:
        """Copy uploaded files into a new private folder, under names of our own; the study's id.

        Raises:
            Refused: the disk is full, or the server is busy.
        """
        study = self._new_study(sum(map(_size, uploads)))
        folder = self.folders.root / study / "input"
        try:
            source = _store(uploads, folder)
        except OSError as error:
            self.folders.remove(study)
            raise _refused("space", reason=error.strerror or error) from error
        shown = uploads[0].name if len(uploads) == 1 else say("intake.several", count=len(uploads))
        self._studies[study] = _Study(strip_ending(shown), source, shown)
        return study

    def _new_study(self, bytes_more: int = 0) -> str:
        waiting = sum(job.state == "queued" for job in self.queue.jobs())
        if limit := self.quota.refusal(waiting, bytes_more):
            raise Refused(Problem(say(f"problem.busy.{limit}"), say(f"problem.busy.{limit}.advice")))
        return self.folders.new()

    def take_path(self, path: Path, title: str = "") -> str:
        """Begin a study with a scan that lies on the server already; it is read and left alone.

        Raises:
            Refused: nothing is there.
        """
        if not path.exists():
            raise _refused("path", path=path)
        study = self._new_study()
        self._studies[study] = _Study(title or strip_ending(path.name), path, path.name)
        return study

    def take_example(self, title: str) -> str:
        """Begin a study with the shipped example.

        Raises:
            Refused: it is not installed.
        """
        if not example_path().exists():
            raise _refused("example")
        return self.take_path(example_path(), title)

    def run(self, study: str, model: str, series: str | None = None) -> None:
        """Queue the study's scan for a model; an earlier job of the study is forgotten."""
        entry = self._studies[study]
        out = self.folders.root / study / "result"
        job = self.queue.submit(JobRequest(entry.source, out, model=model, series=series))
        self._studies[study] = replace(entry, model=model, job=job)

    def status(self, study: str) -> Status:
        """Where the study stands; 'gone' where it was deleted or never was."""
        entry = self._studies.get(study)
        if entry is None or entry.job is None or self.folders.path(study) is None:
            return Status("gone")
        self.folders.touch(study)
        now, job = entry.job.status, entry.job  # one moment: its fields fit together
        return Status(
            state=now.state,
            title=entry.title,
            model=entry.model,
            stage=now.stage,
            fraction=min(1.0, max(0.0, now.fraction)),
            before=self._before(job),
            seconds=job.seconds,
            problem=_problem(entry, now.error) if now.error else None,
        )

    def cancel(self, study: str) -> None:
        """Stop the study's job, in the queue at once, running within some seconds."""
        entry = self._studies.get(study)
        if entry is not None and entry.job is not None:
            entry.job.cancel()

    def forget(self, study: str) -> None:
        """Stop the study, and delete its scan and its result."""
        self.cancel(study)
        entry = self._studies.pop(study, None)
        # A job that still runs would write into the folder that is being deleted.
        threading.Thread(target=self._remove, args=(study, entry.job if entry else None)).start()

    def _remove(self, study: str, job: Job | None) -> None:
        if job is not None:
            job.wait(_LET_GO_S)
        self.folders.remove(study)

    def result(self, study: str) -> Result:
        """The finished study."""
        return read_result(study, self.folders.root / study / "result")

    def close(self) -> None:
        """Stop all jobs and delete all folders."""
        self._closed.set()
        self.queue.close()
        self.folders.close()

    def _before(self, job: Job) -> int:
        running = sum(other.state == "running" for other in self.queue.jobs())
        return job.position - 1 + running if job.position else 0

    def _sweep(self) -> None:
        while not self._closed.wait(_SWEEP_S):
            for study in self.folders.expired(KEEP_HOURS):
                self.forget(study)


def models() -> list[Model]:
    """All installed models, the default one first.

    Raises:
        Refused: a model package is damaged.
    """
    try:
        cards = medseg.list_models()
    except MedsegError as error:
        raise Refused(Problem(error.message, error.advice)) from error
    found = [Model(c.name, c.version, c.title, c.description, c.field_of_view, tuple(c.limits)) for c in cards]
    return sorted(found, key=lambda model: (model.name != "head-neck-oar", model.name))


def strip_ending(name: str) -> str:
    """A file's name without folders and extension, for the eye only."""
    name = Path(name.replace("\\", "/")).name
    ending = _ending(name)
    return name[: -len(ending)] if ending else name


def _ending(name: str) -> str:
    return next((ending for ending in _ENDINGS if name.lower().endswith(ending)), "")


def _store(uploads: Sequence[Upload], folder: Path) -> Path:
    """One file under `scan` and its own ending; several as the files of one DICOM series."""
    if len(uploads) == 1:
        return _copy(uploads[0], folder / f"scan{_ending(uploads[0].name)}")
    for number, upload in enumerate(uploads):
        _copy(upload, folder / f"{number:05d}{_ending(upload.name)}")
    return folder


def _size(upload: Upload) -> int:
    upload.seek(0, 2)
    return int(upload.tell())


def _copy(upload: Upload, path: Path) -> Path:
    def write(temporary: Path) -> None:
        upload.seek(0)
        with temporary.open("wb") as file:
            shutil.copyfileobj(upload, file, 1 << 20)

    return emit(path, write)


def _refused(key: str, **values: object) -> Refused:
    return Refused(Problem(say(f"problem.{key}", **values), say(f"problem.{key}.advice")))


def _problem(entry: _Study, error: Failure) -> Problem:
    # Errors name the file as we stored it; the user knows it by another name.
    message = error.message.replace(f"{entry.source.name}:", f"{entry.shown_name}:")
    return Problem(message, error.advice, error.series)


def segment_for_page(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """What the page's job process runs: segment, save, and keep what the viewer draws.

    Args:
        request: the study; `out` exists and is empty.
        progress: told about every step; raises where the user cancels.
    """
    result = medseg.segment(
        request.source,
        model=request.model,
        series=request.series,
        progress=partial(_most, progress),
        options=request.options,
    )
    progress(Progress("save", 0.93, ""))
    result.save(request.out)
    progress(Progress("show", 0.97, ""))
    keep_scene(request.out, result)
    return {"findings": [str(finding) for finding in result.findings]}


def _most(progress: ProgressCallback, event: Progress) -> None:
    # For segment() the job ends with the measuring; here files and pictures come after it.
    if event.stage != "done":
        progress(replace(event, fraction=event.fraction * 0.92))


def keep_scene(folder: Path, result: medseg.Segmentation) -> None:
    """Write scan and mask for the viewer: canonical order, HU as int16, axial slices in one piece."""
    geometry = result.volume.geometry
    hu = np.clip(np.rint(reorient(result.volume.hu, geometry.to_canonical)), -32768, 32767).astype(np.int16, order="F")
    mask = reorient(result.mask, geometry.to_canonical).astype(np.uint8, order="F")
    emit(folder / PICTURES / "hu.npy", lambda path: np.save(path, hu))
    emit(folder / PICTURES / "mask.npy", lambda path: np.save(path, mask))
    facts = {"spacing_mm": geometry.canonical().spacing_mm, "middles": find_middles(mask)}
    emit_json(folder / PICTURES / "scene.json", facts)
