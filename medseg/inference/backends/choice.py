"""Choice: which backend runs a model on this machine, and why. Remembered between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from medseg.inference.backends.predictor import Candidate
from medseg.models.notes import recall, remember

_KIND = "backends"


@dataclass(frozen=True)
class Choice:
    """The outcome of one comparison.

    Attributes:
        backend: the chosen backend.
        precision: the chosen precision.
        seconds: candidate -> seconds of one tile, e.g. {'openvino bf16': 0.26}; empty where nothing was compared.
        refused: candidate -> why it was not chosen although it is installed.
        remembered: the measurement is from an earlier run.
    """

    backend: str
    precision: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    remembered: bool = False

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.backend, self.precision)

    @property
    def reason(self) -> str:
        """One sentence for the user."""
        if not self.seconds:
            return f"{self.candidate}: the only way to run this model here."
        when = "measured earlier on this machine" if self.remembered else "measured now, once for this machine"
        ranked = sorted(self.seconds.items(), key=lambda item: item[1])
        listed = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in ranked)
        refused = "".join(f"; {name} refused: {why}" for name, why in self.refused.items())
        first = ranked[0][0] == str(self.candidate)
        why = "the fastest per tile" if first else "nearly the fastest per tile, and more exact"
        return f"{self.candidate}: {why} ({listed}; {when}){refused}."


def recall_choice(facts: Mapping[str, Any], candidates: Sequence[Candidate]) -> Choice | None:
    """The choice made earlier under the same facts; None where there is none, or the note is damaged."""
    note = recall(_KIND, facts)
    try:
        found = Choice(**(note or {}))
        sound = found.candidate in candidates and all(float(value) > 0 for value in found.seconds.values())
    except (TypeError, ValueError, AttributeError):
        return None
    return replace(found, remembered=True) if sound and found.seconds else None


def remember_choice(facts: Mapping[str, Any], choice: Choice) -> None:
    """Keep a choice for the next run under the same facts."""
    fields = asdict(replace(choice, seconds=dict(choice.seconds), refused=dict(choice.refused)))
    fields.pop("remembered")
    remember(_KIND, facts, fields)
