"""CT-Facts: what can be said of a study with certainty, from reference masks and header alone.

A fact is a kind and a value, (`metal`, `heavy`). A kind that cannot be told (organ not contoured, cut by the
scan's end) is absent, never guessed. Borders are round numbers near the thirds of the given patients, chosen
before anything was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vlretrieval.profile import AREA_CM2, SLICE_ML, Profile
from vlretrieval.view import STEP_MM

PAROTIDS = ("parotid_gland_right", "parotid_gland_left")
Facts = dict[str, str]
Amount = Callable[[Profile], float | None]


@dataclass(frozen=True)
class Kind:
    """Something that can be said: an amount and where one word ends and the next begins.

    Attributes:
        name: e.g. `metal`.
        subject: `scan`, `body` or an organ; what organ-aware search looks at.
        source: `header` (no pixel is needed), `mask` (reference contours) or `hu`.
        values: words from low to high.
        borders: one less than values; an amount on a border counts as higher.
        amount: None where nothing can be said.
    """

    name: str
    subject: str
    source: str
    values: tuple[str, ...]
    borders: tuple[float, ...]
    amount: Amount

    def value(self, profile: Profile) -> str | None:
        amount = self.amount(profile)
        return None if amount is None else self.values[int(np.searchsorted(self.borders, amount, side="right"))]


def _whole(profile: Profile, organ: str) -> tuple[int, int] | None:
    """First slice and the one after the last of an organ that the scan shows from end to end."""
    if organ not in profile.known or organ not in profile.organs:
        return None
    ends = profile.organs[organ].ends
    if ends is None or ends[0] == 0 or ends[1] == len(profile.body):
        return None
    return ends


def _volume(organ: str) -> Amount:
    def amount(profile: Profile) -> float | None:
        return profile.organs[organ].volume_ml if _whole(profile, organ) else None

    return amount


def _density(*organs: str) -> Amount:
    def amount(profile: Profile) -> float | None:
        if not all(_whole(profile, organ) for organ in organs):
            return None
        return float(np.mean([profile.organs[organ].mean_hu for organ in organs]))

    return amount


def _parotid_level(profile: Profile, above: bool) -> float | None:
    """From the parotids to the scan's upper or lower end, mm."""
    ends = [_whole(profile, organ) for organ in PAROTIDS]
    found = [end for end in ends if end is not None]
    if not found:
        return None
    if above:
        return (len(profile.body) - max(high for _, high in found)) * STEP_MM
    return min(low for low, _ in found) * STEP_MM


def _side(profile: Profile) -> float | None:
    """How much larger the right parotid is than the left, as the logarithm of their ratio."""
    right, left = (_volume(organ)(profile) for organ in PAROTIDS)
    return None if right is None or left is None else float(np.log(right / left))


def _brainstem(profile: Profile) -> float | None:
    """1 where the brainstem is there from end to end, 0 where the scan's upper end cuts it."""
    if "brainstem" not in profile.known or "brainstem" not in profile.organs:
        return None
    ends = profile.organs["brainstem"].ends
    return None if ends is None or ends[0] == 0 else float(ends[1] < len(profile.body))


def _neck_cm2(profile: Profile) -> float | None:
    """Cross-section of the neck, from one to six centimetres below the parotids."""
    ends = [end for end in (_whole(profile, organ) for organ in PAROTIDS) if end is not None]
    low = min((end[0] for end in ends), default=0)
    part = profile.body[max(0, low - 15) : max(0, low - 2)]
    return float(part.mean()) * AREA_CM2 if len(part) >= 10 else None


def _between(amount: float, low: float, high: float) -> float | None:
    """Nothing is said between the two: there it is a matter of opinion."""
    return None if low < amount < high else amount


def _shoulders_cm2(profile: Profile) -> float | None:
    return _between(float(profile.body.max(initial=0)) * AREA_CM2, 360.0, 450.0)


def _lung_ml(profile: Profile) -> float | None:
    lower = profile.gas[: int(0.4 * len(profile.gas))]
    return _between(float(lower.sum()) * SLICE_ML, 25.0, 80.0)


def _field(profile: Profile) -> float | None:
    """Fields of heads and bodies; of a small field cut from one nothing is said ("about 50 cm" would be untrue)."""
    return profile.field_mm if profile.field_mm >= 450 else None


def _slice(profile: Profile) -> float | None:
    return profile.spacing_mm[2] if profile.spacing_mm[2] <= 3.5 else None


def _fat_percent(profile: Profile) -> float | None:
    body = float(profile.body.sum())
    return 100 * float(profile.fat.sum()) / body if body else None


THREE = ("low", "middle", "high")
KINDS: tuple[Kind, ...] = (
    Kind("length", "scan", "header", ("shortest", "short", "long", "longest"), (130, 200, 300), lambda p: p.length_mm),
    Kind("field", "scan", "header", ("usual", "wide"), (520,), _field),
    Kind("slices", "scan", "header", ("thin", "usual", "thick"), (2.2, 2.8), _slice),
    Kind("upper_end", "scan", "mask", THREE, (20, 70), lambda p: _parotid_level(p, above=True)),
    Kind("lower_end", "scan", "mask", ("high", "middle", "low"), (80, 165), lambda p: _parotid_level(p, above=False)),
    Kind("right_parotid", PAROTIDS[0], "mask", ("small", "medium", "large"), (20, 30), _volume(PAROTIDS[0])),
    Kind("left_parotid", PAROTIDS[1], "mask", ("small", "medium", "large"), (20, 30), _volume(PAROTIDS[1])),
    Kind("parotid_side", "parotid_glands", "mask", ("left", "alike", "right"), (-0.15, 0.15), _side),
    Kind("parotid_density", "parotid_glands", "mask", ("fatty", "mixed", "dense"), (-40, -10), _density(*PAROTIDS)),
    Kind("mandible_size", "mandible", "mask", ("small", "medium", "large"), (52, 68), _volume("mandible")),
    Kind("mandible_density", "mandible", "mask", THREE, (560, 630), _density("mandible")),
    Kind("brainstem", "brainstem", "mask", ("cut", "whole"), (0.5,), _brainstem),
    Kind("metal", "scan", "hu", ("none", "some", "heavy"), (0.3, 2), lambda p: float(p.metal.sum()) * SLICE_ML),
    Kind("neck", "body", "mask", ("slender", "medium", "stout"), (140, 170), _neck_cm2),
    Kind("shoulders", "body", "hu", ("out", "in"), (400,), _shoulders_cm2),
    Kind("lungs", "body", "hu", ("out", "in"), (50,), _lung_ml),
    Kind("fat", "body", "hu", ("lean", "average", "stout"), (24, 31), _fat_percent),
)
BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}


ANYWHERE = frozenset({"length", "field", "slices"})
"""Kinds that hold for every part of the body; the others are about heads and necks."""


def read_facts(profile: Profile, *, head_neck: bool = True) -> Facts:
    """Everything that can be said of a study; of other parts of the body only what is true of any."""
    kinds = [kind for kind in KINDS if head_neck or kind.name in ANYWHERE]
    found = {kind.name: kind.value(profile) for kind in kinds}
    return {name: value for name, value in found.items() if value is not None}
