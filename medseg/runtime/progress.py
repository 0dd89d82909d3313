"""Progress of a running job, as events that any front end can show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step forward.

    Attributes:
        stage: short name of the stage, e.g. 'read', 'forecast', 'prepare', 'segment', 'clean', 'measure', 'save'.
        fraction: share of the whole job that is done, 0 ... 1.
        message: a sentence for the user.
    """

    stage: str
    fraction: float
    message: str


ProgressCallback = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """The callback of those who do not watch."""
