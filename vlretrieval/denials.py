"""Which words of a sentence it denies, for the index of words: forward from a denial, and back only where it ends one.

"A large effusion without septa" denies septa alone; "effusion and septa were not observed" denies both. Findings are
learned from whole denied clauses (`reports.sentences`): what was measured of them rests on that, so the two stay apart.
"""

from __future__ import annotations

import re
from itertools import groupby
from operator import itemgetter

# A comma within a number ends nothing.
_COMMA = r"(?:(?<!\d),|,(?!\d))"
_TURN = rf"{_COMMA}|[;；，()（）]|\b(?:but|however|except|although|though|apart from|while|whereas)\b|但|然而"
_VERB = r"\b(?:is|are|was|were|has|have|had)\b"
# "No finding compatible with pneumonia" denies the pneumonia, too.
_WITH = r"(?<!compatible )(?<!consistent )(?<!associated )\bwith\b"
_RUN = rf"(?:(?!{_TURN}|{_WITH}).)*"
_WORD = rf"(?!{_VERB}|\b(?:and|or|nor|no|not|without|with)\b)[\w-]+"
_ITEM = rf"{_WORD}(?:\s+{_WORD}){{0,2}}"
_DENIAL = (
    r"\b(?:no|not|without|neither|nor|never|absent|denies|free of|negative for)\b|\b[a-z]+n['’]t\b|未见|无|没有|未"
)
# Forward up to a border; "no effusion, pneumothorax, or mass" goes on over its commas.
_AHEAD = re.compile(rf"(?:{_DENIAL}){_RUN}(?:(?:,\s*{_ITEM}){{0,6}},?\s+(?:or|nor)\b{_RUN})?", re.I)

_SEEN = (
    r"(?:observed|seen|detected|present|identified|found|noted|visible|visuali[sz]ed|evident|demonstrated|shown"
    r"|given|administered|included|in view)\b"
)
# What was not seen in the previous examination is seen in this one.
_THEN = r"\s+(?:before|previously|(?:in|on|at)\s+(?:\w+\s+)?(?:previous|prior|earlier|other|last|old))\b"
_END = rf"(?=\s*(?:$|{_TURN}))"
_NOT_SEEN = (
    rf"(?:(?:{_VERB}\s+)?\b(?:not|never)|\b[a-z]+n['’]t)\s+(?:be(?:en)?\s+|\w+ly\s+){{0,2}}{_SEEN}(?!{_THEN})"
    rf"|(?:{_VERB}\s+)?\babsent{_END}"
    rf"|(?:未见|未发现|未检出|未显示|未包括|未观察到|没有|无|缺如){_END}"
)
# Back over the subject, which holds no verb of its own: of "the lung is normal and a mass was not seen" it is the mass.
_SUBJECT = rf"(?:(?!{_TURN}|{_VERB}|\b(?:that|which)\b).)*?"
_ITEMS = rf"(?:\s*{_ITEM},){{1,6}}(?={_SUBJECT}\b(?:and|or)\b)"
_BACK = re.compile(rf"(?:^|{_TURN}|\b(?:and|that|which)\b)((?:{_ITEMS})?{_SUBJECT}(?:{_NOT_SEEN}))", re.I)


def split_denied(sentence: str) -> list[tuple[str, bool]]:
    """(part, is denied) of a sentence, in order."""
    denied = [False] * len(sentence)
    spans = [found.span() for found in _AHEAD.finditer(sentence)]
    for low, high in spans + [found.span(1) for found in _BACK.finditer(sentence)]:
        denied[low:high] = [True] * (high - low)
    parts = groupby(zip(sentence, denied, strict=True), key=itemgetter(1))
    return [("".join(letter for letter, _ in part), is_denied) for is_denied, part in parts]
