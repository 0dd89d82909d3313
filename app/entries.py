"""A study as the desk keeps it, with its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.studies import Problem
from medseg.jobs.queue import Job
from medseg.jobs.request import Failure


@dataclass(frozen=True)
class Run:
    """A result on its way or there."""

    number: int
    model: str
    corrected: bool
    job: Job


@dataclass(frozen=True)
class Entry:
    """A study as the desk keeps it."""

    owner: str
    title: str
    source: Path
    shown_name: str
    look: Job
    scan_folder: Path
    series: str | None = None
    runs: tuple[Run, ...] = ()


def problem_of(entry: Entry, error: Failure) -> Problem:
    """What went wrong with a study, in words that name it as the visitor does."""
    # Errors name the file as we stored it; the visitor knows it by another name.
    message = error.message.replace(f"{entry.source.name}:", f"{entry.shown_name}:")
    return Problem(message, error.advice, error.series, error.error)
