"""A report as terms: stems, their neighbours, and pairs within a clause; what is denied is another term."""

from __future__ import annotations

import re

from vlretrieval.reports.sentences import split_clauses, split_sentences
from vlretrieval.words import DENIED, stem

_WORD = re.compile(r"[a-zà-ÿğışœ]+|\d+(?:[.,x]\d+)*|[\u4e00-\u9fff]")
_REACH = 6  # words between which a pair is counted
_LONG = 4


def report_terms(text: str) -> list[str]:
    """Runs of one to three words, and pairs of longer words of an affirmed clause in any order."""
    terms: list[str] = []
    for sentence in split_sentences(text.lower()):
        for clause, denied in split_clauses(sentence):
            words = [_plain(word) for word in _WORD.findall(clause)]
            mark = DENIED if denied else ""
            terms += [mark + "_".join(words[at : at + size]) for size in (1, 2, 3) for at in _starts(words, size)]
            terms += [] if denied else _pairs(words)
    return terms


def _starts(words: list[str], size: int) -> range:
    return range(len(words) - size + 1)


def _plain(word: str) -> str:
    return "#" if word[0].isdigit() else stem(word)


def _pairs(words: list[str]) -> list[str]:
    long = [word for word in dict.fromkeys(words) if len(word) >= _LONG]
    return ["&".join(sorted((a, b))) for at, a in enumerate(long) for b in long[at + 1 : at + _REACH]]
