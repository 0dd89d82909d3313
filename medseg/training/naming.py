"""Names of organs as ours are."""

from __future__ import annotations

import re


def tidy(name: str) -> str:
    """An organ's name as ours are: snake_case, the side at the end, so that pairs are found when patches mirror."""
    words = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_").split("_")
    sides = {"l": "left", "r": "right", "left": "left", "right": "right"}
    for place in (-1, 0):
        if len(words) > 1 and words[place] in sides:
            side = sides[words.pop(place)]
            return "_".join([*words, side])
    return "_".join(words)
