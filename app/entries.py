"""A study as the desk keeps it, with its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.studies import Problem
from medseg.jobs.queue import Job
from medseg.jobs.request import Failure, JobRequest
from medseg.runtime.options import Options


@dataclass(frozen=True)
class Run:
    """A result on its way or there."""

    number: int
    model: str
    corrected: bool
    job: Job


@dataclass(frozen=True)
class Entry:
    """A study as the desk keeps it.

    Attributes:
        owner: the visitor who brought it.
        series: the one that was chosen, where there were several.
        accept: the visitor's reason to go on with what is no CT or holds no Hounsfield units.
    """

    owner: str
    title: str
    source: Path
    shown_name: str
    look: Job
    scan_folder: Path
    series: str | None = None
    accept: str = ""
    runs: tuple[Run, ...] = ()

    def request(self, out: Path, *, model: str = "", extra: Mapping[str, Any] | None = None) -> JobRequest:
        """Work on this scan, read as it was read first; `extra["scan"]` is the folder that says what was read."""
        options, told = Options(accept=self.accept), {"scan": str(self.scan_folder), **(extra or {})}
        return JobRequest(self.source, out, model=model, series=self.series, options=options, extra=told)


def first_picture_of(scan_folder: Path) -> Path:
    """PNG of three planes, beside the folder of the scan: it is there before that."""
    return scan_folder.with_suffix(".png")


def problem_of(entry: Entry, error: Failure) -> Problem:
    """What went wrong with a study, in words that name it as the visitor does."""
    # Errors name the file as we stored it; the visitor knows it by another name.
    message = error.message.replace(f"{entry.source.name}:", f"{entry.shown_name}:")
    return Problem(message, error.advice, error.series, error.error)
