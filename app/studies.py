"""What the page knows of a study at one moment: small frozen types, no streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.scans import Scan
from app.text import say

JobState = Literal["queued", "running", "done", "failed", "cancelled", "gone"]
Phase = Literal["reading", "unreadable", "read", "gone"]


@dataclass(frozen=True)
class Problem:
    """What went wrong and the way out.

    Attributes:
        message, advice: as the engine says them.
        series: the choices, where a choice is the way out.
        code: class of the error, by which the page finds words in another language.
    """

    message: str
    advice: str = ""
    series: tuple[str, ...] = ()
    code: str = ""


class Refused(Exception):  # noqa: N818 - the desk's word for it
    """The page cannot do this; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def refused(key: str, **values: object) -> Refused:
    """The refusal of that key, in the visitor's language."""
    return Refused(Problem(say(f"problem.{key}", **values), say(f"problem.{key}.advice")))


@dataclass(frozen=True)
class RunView:
    """A result of a study, there or on its way.

    Attributes:
        number: 1, 2, 3 ... within the study.
        model: name of the model.
        corrected: a person made it from an earlier one.
        folder: of the result, once it is done.
        before: jobs that run first.
    """

    number: int
    model: str
    corrected: bool
    state: JobState
    folder: Path
    stage: str = ""
    fraction: float = 0.0
    before: int = 0
    seconds: float = 0.0
    problem: Problem | None = None


@dataclass(frozen=True)
class StudyView:
    """A study at one moment.

    Attributes:
        phase: how far reading the scan has come.
        scan: what was read; None before.
        runs: oldest first.
    """

    id: str
    phase: Phase
    title: str = ""
    stage: str = ""
    problem: Problem | None = None
    scan: Scan | None = None
    runs: tuple[RunView, ...] = ()

    def run(self, number: int | None) -> RunView | None:
        """The run of that number; the last one that is done, or the last, where none is named."""
        if number is not None:
            return next((run for run in self.runs if run.number == number), None)
        done = [run for run in self.runs if run.state == "done"]
        found = done or list(self.runs)
        return found[-1] if found else None


@dataclass(frozen=True)
class TaskView:
    """Something that was asked for beside the segmentation."""

    state: JobState
    folder: Path
    fraction: float = 0.0
    problem: Problem | None = None


@dataclass(frozen=True)
class Forecast:
    """What a run will take on this computer."""

    seconds: float
    memory_mb: float
