"""What is scored and how: settings, and the rules for empty masks, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from medseg.errors import ConfigError

DEFAULT_TOLERANCE_MM = 5.0
OPEN_ENDED = ("spinal_cord", "esophagus")  # where their contours start and end is the clinic's habit
TolerancesMm = float | Mapping[str, float]


class Outcome(StrEnum):
    """What became of one organ in one case."""

    SCORED = "scored"  # in both masks
    MISS = "miss"  # in the reference, not in the prediction
    FALSE_POSITIVE = "false_positive"  # in the prediction, known to be absent from the reference
    TRUE_NEGATIVE = "true_negative"  # in neither
    UNPREDICTED = "unpredicted"  # absent from the reference, and no prediction was handed in

    @property
    def has_reference(self) -> bool:
        return self in (Outcome.SCORED, Outcome.MISS)


@dataclass(frozen=True)
class EmptyPolicy:
    """The rules for empty masks. A library that returns NaN there and drops it rewards a model for missing organs.

    Attributes:
        false_positives_in_mean: whether the 0 of a false positive enters the means (it is counted apart either way).
    """

    false_positives_in_mean: bool = True

    def outcome(self, predicted: bool, referenced: bool, handed_in: bool = True) -> Outcome:
        """The outcome for masks that hold at least one voxel (True) or none (False)."""
        if referenced:
            return Outcome.SCORED if predicted else Outcome.MISS
        if predicted:
            return Outcome.FALSE_POSITIVE
        return Outcome.TRUE_NEGATIVE if handed_in else Outcome.UNPREDICTED

    def in_mean(self, outcome: Outcome) -> bool:
        """Whether Dice and surface Dice of this outcome enter an organ's mean."""
        return outcome.has_reference or (outcome is Outcome.FALSE_POSITIVE and self.false_positives_in_mean)

    def describe(self) -> dict[str, str]:
        """The rules as sentences, for the scorecard."""
        joins = "enters" if self.false_positives_in_mean else "does not enter"
        return {
            "both_empty": "not scored; counted as a true negative",
            "miss": "Dice 0 and surface Dice 0 enter the means; HD95 undefined; counted as a miss",
            "false_positive": f"Dice 0 and surface Dice 0, which {joins} the means; HD95 undefined; counted apart",
            "no_prediction": "a reference without a prediction is a miss for each of its organs",
            "unknown_organ": "an organ that was not contoured in a case is unknown there and not scored",
            "hd95_mm": "mean over the found organs only: read it together with the number of misses",
            "hd95_penalised_mm": "an undefined HD95 counts as the diagonal of the scan's field of view",
        }


@dataclass(frozen=True)
class Settings:
    """How masks are compared.

    Attributes:
        tolerance_mm: surface Dice tolerance: one number, or a number for each named organ (5 mm for the others).
        within_contoured: organs whose ends are the clinic's habit, scored from the first to the last contoured
            slice, plus and minus `margin_slices`; the plain figure is kept beside it.
        margin_slices: slices added at both ends.
        policy: the rules for empty masks.
    """

    tolerance_mm: TolerancesMm = DEFAULT_TOLERANCE_MM
    within_contoured: tuple[str, ...] = ()
    margin_slices: int = 1
    policy: EmptyPolicy = field(default_factory=EmptyPolicy)

    def __post_init__(self) -> None:
        numbers = self.tolerance_mm.values() if isinstance(self.tolerance_mm, Mapping) else [self.tolerance_mm]
        if not all(0 < number < float("inf") for number in numbers):
            raise ConfigError("A surface tolerance has to be a positive number of millimetres.")
        if self.margin_slices < 0:
            raise ConfigError("margin_slices has to be 0 or more.")

    def tolerance_of(self, organ: str) -> float:
        """Surface Dice tolerance of one organ in mm."""
        if isinstance(self.tolerance_mm, Mapping):
            return float(self.tolerance_mm.get(organ, DEFAULT_TOLERANCE_MM))
        return float(self.tolerance_mm)

    def check_names(self, organs: Sequence[str]) -> None:
        """Refuse settings for organs that are in no label table.

        Raises:
            ConfigError: names the unknown organs and the known ones.
        """
        named = {*self.within_contoured, *(self.tolerance_mm if isinstance(self.tolerance_mm, Mapping) else ())}
        refuse_unknown(named, organs)

    def scope_of(self, organ: str) -> str:
        """Which part of the scan an organ is scored in, in words."""
        if organ not in self.within_contoured:
            return "whole scan"
        return f"contoured slices ± {self.margin_slices}"

    def to_dict(self) -> dict[str, Any]:
        tolerance = self.tolerance_mm
        return {
            "tolerance_mm": dict(tolerance) if isinstance(tolerance, Mapping) else tolerance,
            "default_tolerance_mm": DEFAULT_TOLERANCE_MM,
            "within_contoured": list(self.within_contoured),
            "margin_slices": self.margin_slices,
        }


def refuse_unknown(named: set[str], organs: Sequence[str]) -> None:
    """Raise a ConfigError for names that are not among `organs`."""
    unknown = sorted(named - set(organs))
    if unknown:
        raise ConfigError(f"Unknown organs: {', '.join(unknown)}.", advice=f"The references name: {', '.join(organs)}.")
