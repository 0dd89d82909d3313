"""What a job is asked and what it answers: the small types that cross the process border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medseg.errors import MedsegError
from medseg.runtime.options import Options


@dataclass(frozen=True)
class JobRequest:
    """One study to be segmented.

    Attributes:
        source: file, zip or DICOM folder.
        out: the result folder itself. It appears only when it is complete.
        model: name of the model.
        series: number or UID of the series, where the source holds several.
        options: backend, precision and a limit of memory.
        formats: further files of the result, see `medseg.exports`.
        extra: words for works other than segmentation; JSON can hold them.
    """

    source: Path
    out: Path
    model: str = "head-neck-oar"
    series: str | None = None
    options: Options = field(default_factory=Options)
    formats: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What a worker process runs, as importable names 'package.module:function'.

    Attributes:
        run: `run(request, progress) -> dict` writes the result files into `request.out`, which exists and
            is empty, calls `progress` often (this is also where it is cancelled), and returns JSON values.
        identify: `identify(model) -> str`, a digest that changes when the model changes; runs in the parent.
    """

    run: str
    identify: str


SEGMENT = Work("medseg.jobs.work:segment_study", "medseg.jobs.work:identify_model")


@dataclass(frozen=True)
class Failure:
    """Why a study has no result.

    Attributes:
        error: class name, for those of `medseg.errors` and for unexpected ones alike.
        message: a sentence that names the study.
        advice: the way out.
        series: one line for each series to choose from (SeriesChoiceError), else empty.
        detail: traceback or last words of the process, for a bug report; not for the user's eyes first.
    """

    error: str
    message: str
    advice: str = ""
    series: tuple[str, ...] = ()
    detail: str = ""

    @classmethod
    def of(cls, error: MedsegError, detail: str = "") -> Failure:
        """The failure that an error of this project describes."""
        return cls(type(error).__name__, error.message, error.advice, tuple(getattr(error, "series", ())), detail)


@dataclass(frozen=True)
class Outcome:
    """How a study ended.

    Attributes:
        status: 'done', 'failed' or 'cancelled'.
        result: what the work returned; empty unless done.
        failure: the reason, when failed.
        seconds: time from handing it to the process until its end.
    """

    status: Literal["done", "failed", "cancelled"]
    result: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    seconds: float = 0.0
