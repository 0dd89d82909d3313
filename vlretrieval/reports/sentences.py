"""Sentences of a report, and what is denied in them. English and Chinese."""

from __future__ import annotations

import re

# A full stop ends a sentence before a blank or the end, not within 2.5 mm.
_ENDS = re.compile(r"(?<=[.;!?])\s+|[。；！？\n•·“”\"]+|\.$")
_DENIED = re.compile(
    r"\b(?:no|not|without|neither|nor|never|absent|denies|free of|negative for)\b|n't\b|未见|无|没有|未", re.I
)
# Words behind which a denial does not reach.
_TURN = re.compile(r"\b(?:but|however|except|although|apart from)\b|但|然而", re.I)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, trimmed, empty ones left out."""
    parts = (part.strip(" \t.;。；") for part in _ENDS.split(text))
    return [part for part in parts if part]


def split_clauses(sentence: str) -> list[tuple[str, bool]]:
    """(clause, is denied) of a sentence: a denial holds up to the next 'but'."""
    clauses = [part.strip(" ,，") for part in _TURN.split(sentence)]
    return [(clause, is_denied(clause)) for clause in clauses if clause]


def is_denied(clause: str) -> bool:
    """Whether a clause says that something is not there."""
    return _DENIED.search(clause) is not None
