"""What a user may accept on purpose, and how that stays on record.

A scan that is no CT, or whose values are no Hounsfield units, is refused. Whoever knows better gives a reason; the
refusal becomes a warning that quotes it, in the result's findings and in the run report. Damage and contradicting
geometry cannot be accepted: there is no reason that makes them right.
"""

from __future__ import annotations

from dataclasses import dataclass

from medseg.errors import NotCTError, NotHUError
from medseg.imaging.naming import printable
from medseg.imaging.volume import Finding

MAX_REASON = 200


@dataclass(frozen=True)
class Acceptance:
    """A reason to go on in spite of `NotCTError` and `NotHUError`; '' is none."""

    reason: str = ""

    @classmethod
    def of(cls, reason: str | None) -> Acceptance:
        """From what a user wrote; nothing is no reason."""
        return NOTHING if reason is None else cls(printable(" ".join(reason.split()), MAX_REASON))

    def __bool__(self) -> bool:
        return bool(self.reason)

    def lift(self, error: NotCTError | NotHUError) -> tuple[Finding, ...]:
        """The warning in place of `error`, or the error where nothing was accepted."""
        if not self.reason:
            raise error
        return (Finding("accepted", f"The scan {_as_clause(error.reason)} Accepted with the reason: {self.reason}"),)


def _as_clause(reason: str) -> str:
    return reason if reason.startswith(("holds", "is ")) else f"would be refused: {reason}"


NOTHING = Acceptance()
