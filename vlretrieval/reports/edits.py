"""One edit that makes a report false: side, negation or size. What remains is as long and as fluent."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

_SWAPS = (
    ("right", "left"),
    ("larger", "smaller"),
    ("large", "small"),
    ("enlarged", "reduced"),
    ("increased", "decreased"),
    ("upper", "lower"),
    ("右", "左"),
    ("增大", "缩小"),
    ("增高", "减低"),
)
_PARTNER = {a: b for pair in _SWAPS for a, b in (pair, pair[::-1])}
_WORDS = re.compile(
    r"\b(" + "|".join(sorted((w for w in _PARTNER if w.isascii()), key=len, reverse=True)) + r")\b"
    "|(" + "|".join(w for w in _PARTNER if not w.isascii()) + ")",
    re.IGNORECASE,
)
_DENIALS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(was|were|is|are) not (observed|detected|seen|present)\b", re.I), r"\1 \2"),
    (re.compile(r"\b(was|were|is|are) (observed|detected|seen|present)\b", re.I), r"\1 not \2"),
    (re.compile(r"^no ", re.I), "there is "),
    (re.compile(r"^there (is|are) (?!no\b)", re.I), r"there \1 no "),
    (re.compile(r"\bwithout\b", re.I), "with"),
    (re.compile("未见|无"), "可见"),
    (re.compile("可见"), "未见"),
)


def swap_words(sentence: str) -> str:
    """Right becomes left, large small, everywhere in the sentence."""

    def partner(found: re.Match[str]) -> str:
        word = found[0]
        other = _PARTNER[word.lower()]
        return other.capitalize() if word[0].isupper() else other

    return _WORDS.sub(partner, sentence)


def turn_denial(sentence: str) -> str:
    """What was seen was not seen, and the other way round."""
    for pattern, instead in _DENIALS:
        if pattern.search(sentence):
            return pattern.sub(instead, sentence, count=1)
    return sentence


def edit_one(sentences: Sequence[str], rng: np.random.Generator) -> tuple[int, str] | None:
    """Place and new words of one sentence that is made false; None where none can be."""
    edits: tuple[Callable[[str], str], ...] = (swap_words, turn_denial)
    options = [(place, edit(s)) for place, s in enumerate(sentences) for edit in edits if edit(s) != s]
    return options[int(rng.integers(len(options)))] if options else None
