"""Words of an organ's name, and the side of the body that one of them means."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

SIDES = {
    **dict.fromkeys(("left", "l", "lt", "lft", "links", "gauche", "izquierda", "izquierdo", "sinistra", "sx"), "left"),
    **dict.fromkeys(("right", "r", "rt", "rgt", "rechts", "droite", "droit", "derecha", "derecho", "destra"), "right"),
    "dx": "right",
}
_WITHOUT = {("l", "spine")}  # lumbar
_GLUED = re.compile(r"^(Left|Right|Lt|Rt)(?=[A-Z][a-z])|(?<=[a-z])(?=(Left|Right|Lt|Rt|L|R)$)")
_ACCENTS = re.compile("[\u0300-\u036f]")


def words_of(name: str) -> list[str]:
    """Lower-case words without accents, of letters and digits of any script: "LungL" is "lung" and "l"."""
    parted = _GLUED.sub(lambda found: f"{found.group()}_", name.strip())
    plain = unicodedata.normalize("NFKC", _ACCENTS.sub("", unicodedata.normalize("NFKD", parted))).casefold()
    kept = "".join(sign if unicodedata.category(sign)[0] in "LMN" else " " for sign in plain)
    return kept.split()


def is_sided(words: Sequence[str]) -> bool:
    """Whether a word means a side."""
    return tuple(words) not in _WITHOUT and any(word in SIDES for word in words)


def tidy(name: str) -> str:
    """An organ's name as ours are: snake_case, the side at the end, so that pairs are found when patches mirror.

    Empty where the name has no letter and no digit.
    """
    words = words_of(name)
    for place in (-1, 0):
        if len(words) > 1 and words[place] in SIDES and is_sided(words):
            side = SIDES[words.pop(place)]
            return "_".join([*words, side])
    return "_".join(words)
