"""Organs and parts of the body that a question names, with the side, the size and the denial that stand beside them.

A denial reaches what it stands before, over articles, sides and sizes, and on over "or" and "and" ("without chest and
abdomen"). "No lung nodules" denies no part of the body: another noun follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

from vlretrieval.lexicon import names_by_word, pattern
from vlretrieval.store.schema import StoreInfo

_REACH = 80  # characters before a word in which what belongs to it is looked for
_NO = r"(?<![a-z])(?:no|without|absent|missing)(?![a-z])|没有|未见|无|不含|不包括|不包含|未包括"
_NOT = r"(?<![a-z])not(?![a-z])|n['’]t(?![a-z])|不|未"
_VERB = re.compile(r"\s*(?:is|are|was|were|appears?|looks?)?\s*", re.I)
_SUFFIX = re.compile(r"(?:_(right|left))?(?:_(ml|hu))?(?![a-z_])", re.I)
_ON_SIDE = re.compile(r"\s*(?:on|of) the (right|left)", re.I)
# What may follow a word that is denied by itself; before another noun it is that noun's.
_ALONE = re.compile(
    r"\s*(?:[^\w\s-]|(?:and|or|nor|but|in|on|at|is|are|was|were|with|without|from|for|to|which|that|who|seen|visible|"
    r"present|found|included|shown|covered|imaged|there|at all|scans?|images?|study|studies|patients?|cases?)(?![a-z])"
    r"|和|及|与|或|但|而|且|在|的?\s*(?:$|ct(?![a-z])|扫描|影像|图像|患者|病人|检查))",
    re.I,
)
_JOINTS = dict.fromkeys(("or", "nor", ",or", ",nor", "and/or", "/", "或", "或者"), "or") | dict.fromkeys(
    ("and", "&", "和", "及", "以及", "与"), "and"
)
_LISTS = {",": "", "，": "", "、": "and"}  # and "or", where that joins the list's last


@dataclass(frozen=True)
class Mention:
    """A word for an organ or a part of the body, and what is said beside it.

    Attributes:
        group: organs or regions.
        name: of the organ without its side, or of the part of the body.
        opens, start, end: characters where its adjectives begin, where it begins, and where it ends.
        side: right, left or ''.
        size: large, small or ''.
        denied: "no spleen".
        joint: and, or, or '': how it goes on from the mention before.
        measure: ml or hu of the name of a measure ("mandible_hu"), else ''.
    """

    group: str
    name: str
    opens: int
    start: int
    end: int
    side: str = ""
    size: str = ""
    denied: bool = False
    joint: str = ""
    measure: str = ""


@dataclass(frozen=True)
class Ahead:
    """What stands directly before a word: '', 'no' or 'not', and behind that its articles, sides and sizes."""

    start: int
    denial: str
    adjectives: str


def find_mentions(text: str) -> list[Mention]:
    """All mentions, in order. Names of label tables and of measures ("parotid_gland_right_ml") are read, too."""
    plain = text.replace("_", " ")
    found: list[Mention] = []
    for group, match in _words(plain):
        found.append(_mention(text, group, match, found[-1].end if found else 0))
    return _denied(plain, _joined(plain, found))


def known_organs(mention: Mention, info: StoreInfo) -> tuple[str, ...]:
    """Names of the archive's label tables that a mention can mean; none where the archive knows no such organ."""
    wanted = f"{mention.name}_{mention.side}" if mention.side else mention.name
    if wanted in info.organs:
        return (wanted,)
    sides = tuple(f"{mention.name}_{side}" for side in ("right", "left"))
    if mention.side:
        return (mention.name,) if mention.name in info.organs else ()
    return tuple(name for name in sides if name in info.organs)


def read_ahead(text: str, start: int, edge: int = 0) -> Ahead:
    """What belongs to the word at `start`, not before `edge`."""
    found = _ahead().search(text.replace("_", " "), max(edge, start - _REACH), start)
    if found is None:
        return Ahead(start, "", "")
    return Ahead(found.start(), "no" if found["no"] else "not" if found["not"] else "", found["adjectives"])


@cache
def adjectives() -> str:
    """Pattern of articles, sides and sizes in a row."""
    rows = (rf"(?:{word})(?:\s*(?:and|or|和|或|/)\s*(?:{word}))*" for word in map(_of_group, ("sides", "sizes")))
    return rf"(?:\s|的|(?<![a-z])(?:the|a|an|any)(?![a-z])|{'|'.join(rows)})*"


def _of_group(group: str) -> str:
    return pattern(group).pattern


@cache
def _ahead() -> re.Pattern[str]:
    return re.compile(rf"(?:(?P<no>{_NO})|(?P<not>{_NOT}))?(?P<adjectives>{adjectives()})$", re.I)


@cache
def _lookalikes() -> re.Pattern[str]:
    """Heads and necks of organs and bones."""
    word = r"(?:(?<![a-z])(?:heads?|necks?|bell(?:y|ies))(?![a-z])|头颈部?|头部?|颈部?)"
    parts, owner = rf"{word}(?:\s+(?:and|or)\s+{word})?", rf"(?:{_of_group('owners')})"
    owned = rf"{owner}\s*的?\s*{parts}|{parts}\s+of\s+(?:(?:the|a|an|right|left)\s+)*{owner}"
    return re.compile(rf"{owned}|{_of_group('lookalikes')}", re.I)


def _words(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """(group, word) in order; "lung" in "upper lobe of lung" is no part of the body by itself."""
    organs = list(pattern("organs").finditer(text))
    taken = [match.span() for match in (*organs, *_lookalikes().finditer(text))]
    regions = [
        match
        for match in pattern("regions").finditer(text)
        if not any(start <= match.start() and match.end() <= end for start, end in taken)
    ]
    found = [("organs", match) for match in organs] + [("regions", match) for match in regions]
    yield from sorted(found, key=lambda item: item[1].start())


def _mention(text: str, group: str, match: re.Match[str], edge: int) -> Mention:
    suffix = _SUFFIX.match(text, match.end())
    side, measure = (suffix[1] or "", suffix[2] or "") if suffix else ("", "")
    end = suffix.end() if suffix else match.end()
    ahead = read_ahead(text, match.start(), edge)
    size = "" if ahead.denial else _size(ahead.adjectives, text, end)
    # "No enlarged parotid" and "not enlarged" deny the size alone: most who have one have a normal one.
    denied = bool(ahead.denial) and not pattern("sizes").search(ahead.adjectives)
    name = names_by_word(group)[match[0].lower()]
    side = side.lower() or _side(ahead.adjectives, text, end)
    return Mention(group, name, ahead.start, match.start(), end, side, size, denied, measure=measure.lower())


def _size(ahead: str, text: str, end: int) -> str:
    """'enlarged right parotid', or 'parotid is large'; empty where neither is said."""
    sizes = pattern("sizes").findall(ahead)
    if not sizes:
        verb = _VERB.match(text, end)
        behind = pattern("sizes").match(text, verb.end() if verb else end)
        sizes = [behind[0]] if behind else []
    found = names_by_word("sizes")[sizes[-1].lower()] if sizes else ""
    return "" if found == "normal" else found


def _side(ahead: str, text: str, end: int) -> str:
    """'right parotid', or 'parotid on the right'; empty where none or both are said."""
    sides = {names_by_word("sides")[word.lower()] for word in pattern("sides").findall(ahead)}
    if sides:
        return sides.pop() if len(sides) == 1 else ""
    behind = _ON_SIDE.match(text, end)
    return behind[1].lower() if behind else ""


def _joined(text: str, found: Sequence[Mention]) -> list[Mention]:
    """With their joints; commas of a list that ends in 'or' say 'or', too."""
    signs = ["", *("".join(text[one.end : other.opens].lower().split()) for one, other in pairwise(found))]
    joints, after = list[str](), ""
    for sign in reversed(signs):
        after = ("or" if after == "or" else _LISTS[sign]) if sign in _LISTS else _JOINTS.get(sign, "")
        joints.insert(0, after)
    return [replace(mention, joint=joint) for mention, joint in zip(found, joints, strict=False)]


def _denied(text: str, found: Sequence[Mention]) -> list[Mention]:
    """With denials carried on over joints, and taken back where another noun follows."""
    alone = _stand_alone(text, found)
    out: list[Mention] = []
    for mention, is_alone in zip(found, alone, strict=True):
        # "No spleen and enlarged parotid": another thing begins.
        goes_on = mention.joint == "or" or (mention.joint == "and" and not mention.size)
        carried = bool(out) and out[-1].denied and goes_on
        out.append(replace(mention, denied=is_alone and (mention.denied or carried)))
    return out


def _stand_alone(text: str, found: Sequence[Mention]) -> list[bool]:
    """Whether no other noun follows each; "thoracic or abdominal mass" is one noun's, and so is "thoracic aorta"."""
    alone: list[bool] = []
    for number, mention in reversed(list(enumerate(found))):
        behind = found[number + 1] if number + 1 < len(found) else None
        if behind and behind.joint:
            alone.insert(0, alone[0])
        elif behind and not text[mention.end : behind.opens].strip():
            alone.insert(0, alone[0] and mention.group == behind.group)
        else:
            alone.insert(0, _ALONE.match(text, mention.end) is not None)
    return alone
