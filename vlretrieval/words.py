"""Words of a text as they are indexed and asked for: denied ones are other words."""

from __future__ import annotations

import re

from vlretrieval.denials import split_denied
from vlretrieval.lexicon import stop_words
from vlretrieval.reports.sentences import split_sentences

_WORD = re.compile(r"[a-zà-ÿ]+|\d+(?:\.\d+)?|[\u4e00-\u9fff]+")
DENIED = "not_"


def analyse(text: str) -> list[str]:
    """Index terms of a text: English words without their endings, Chinese pairs of characters, denied terms marked.

    "No effusion" holds the term `not_effusion`; who looks for `effusion` does not find it. Archives keep these terms:
    one that was indexed before a change here answers by what held then.
    """
    terms: list[str] = []
    for sentence in split_sentences(text.lower()):
        for part, denied in split_denied(sentence):
            terms += [DENIED + term if denied else term for term in _terms(part)]
    return terms


def _terms(part: str) -> list[str]:
    found: list[str] = []
    for word in _WORD.findall(part):
        if "\u4e00" <= word[0] <= "\u9fff":
            found += [word] if len(word) == 1 else [word[n : n + 2] for n in range(len(word) - 1)]
        elif word not in stop_words():
            found.append(stem(word))
    return found


def stem(word: str) -> str:
    """The word without plural and the commonest endings; crude, and the same for archive and question."""
    for ending, least in (
        ("ations", 5),
        ("ation", 5),
        ("ities", 4),
        ("ies", 4),
        ("ing", 4),
        ("ed", 4),
        ("es", 4),
        ("s", 3),
    ):
        if word.endswith(ending) and len(word) - len(ending) >= least and not word.endswith("ss"):
            return word[: -len(ending)]
    return word
