"""What is kept of a study, what is found, and why. Frozen, without pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from medseg.imaging.volume import Array


@dataclass(frozen=True)
class Report:
    """A radiologist's words about a study; `labels` are findings, 1 present and 0 absent."""

    text: str
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """One indexed study.

    Attributes:
        id: of the scan's content; the same scan found elsewhere has the same.
        patient: a pseudonym; all of a patient's studies have the same, and go together when they are deleted.
        name: of its file or folder, without extension.
        path: where the scan lies.
        fingerprint: names, sizes and times of its files: what is unchanged is not read again.
        regions: parts of the body in view, e.g. head_neck.
        organs: what was found in it.
        measures: `spleen_ml`, `spleen_hu`, `length_mm` ...
        text: facts in words, and the report.
        report: of the radiologist, empty where there is none.
        thumbnail: PNG.
        key: its number in the store; 0 before it is stored.
    """

    id: str
    patient: str
    name: str
    path: str
    fingerprint: str = ""
    regions: tuple[str, ...] = ()
    organs: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    report: str = ""
    thumbnail: bytes = b""
    key: int = 0

    def to_json(self) -> dict[str, Any]:
        """Everything but the picture."""
        values = {name: value for name, value in vars(self).items() if name not in ("thumbnail", "key", "fingerprint")}
        return values | {"regions": list(self.regions), "organs": list(self.organs), "measures": dict(self.measures)}


@dataclass(frozen=True)
class Vectors:
    """whole [D] and one [D] for each organ, of unit length; `features` [F] are what the matching head wants to see."""

    whole: Array
    organs: Mapping[str, Array] = field(default_factory=dict)
    features: Array | None = None


@dataclass(frozen=True)
class Entry:
    """What is added to an archive.

    Attributes:
        study, vectors: of one scan.
        words: that are searched beside the study's text and report, and never shown.
        facts: terms of the index of facts.
    """

    study: Study
    vectors: Vectors
    words: str = ""
    facts: str = ""


@dataclass(frozen=True)
class Reason:
    """Why a study was found: a filter it passed, an organ it shows, words it holds, or its likeness.

    Attributes:
        text: in English.
        names: what it is about (organs, parts of the body, measures, facts, a share), to be said in another language.
    """

    kind: Literal["filter", "organ", "region", "words", "likeness", "likely", "match"]
    text: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hit:
    """A study that was found; `score` orders hits of one search and means nothing between searches."""

    rank: int
    score: float
    study: Study
    reasons: tuple[Reason, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "rank": self.rank,
            "score": round(self.score, 4),
            "why": [f"{reason.kind}: {reason.text}" for reason in self.reasons],
            **self.study.to_json(),
        }
