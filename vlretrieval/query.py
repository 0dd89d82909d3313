"""What a person types -> filters, organs, parts of the body, facts and words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medseg.errors import ConfigError
from vlretrieval.facts.kinds import Facts
from vlretrieval.facts.reader import read_words
from vlretrieval.lexicon import names_by_word, pattern, title
from vlretrieval.store.schema import StoreInfo

_NUMBER = r"(?P<number>-?\d+(?:[.,]\d+)?)"
_SCAN = (
    ("length_mm", re.compile(r"scan length|coverage|length|扫描长度|扫描范围|长度", re.I)),
    ("slice_mm", re.compile(r"slice thickness|slices?|层厚", re.I)),
    ("field_mm", re.compile(r"field of view|fov|视野", re.I)),
)
_TO_MM = {"mm": 1.0, "cm": 10.0}
_TO_ML = {"ml": 1.0, "litre": 1000.0}


@dataclass(frozen=True)
class Filter:
    """A measure and its limit; several measures: one of them has to pass."""

    measures: tuple[str, ...]
    comparison: str
    limit: float

    def sql(self) -> str:
        parts = [f"{measure} {self.comparison} {self.limit:g}" for measure in self.measures]
        return f"({' OR '.join(parts)})"

    def __str__(self) -> str:
        measure = self.measures[0]
        name, unit = measure.rsplit("_", 1)
        names = " or ".join(title(measure.rsplit("_", 1)[0]) for measure in self.measures)
        return f"{names if unit != 'mm' else name} {self.comparison} {self.limit:g} {unit.replace('hu', 'HU')}"


@dataclass(frozen=True)
class Query:
    """A question, taken apart.

    Attributes:
        text: what remains when filters are taken out.
        filters: on measures.
        organs: of the archive's label tables that are named; each tuple holds what one word can mean.
        absent: that are denied ("no spleen"), in the same way.
        regions: that are named.
        sizes: organs that are called `large` or `small`.
        unknown: organs that are named and that the archive's segmenter does not know.
        facts: that are stated.
    """

    text: str
    filters: tuple[Filter, ...] = ()
    organs: tuple[tuple[str, ...], ...] = ()
    absent: tuple[tuple[str, ...], ...] = ()
    regions: tuple[str, ...] = ()
    sizes: tuple[tuple[tuple[str, ...], str], ...] = ()
    unknown: tuple[str, ...] = ()
    facts: Facts | None = None

    def where(self) -> str | None:
        """SQL that a study has to pass; None where nothing is asked."""
        clauses = [condition.sql() for condition in self.filters]
        clauses += [_any("organs", names) for names in self.organs]
        clauses += [f"NOT {_any('organs', names)}" for names in self.absent]
        if self.regions:
            clauses.append(_any("regions", self.regions))
        return " AND ".join(clauses) or None


def _any(column: str, names: Sequence[str]) -> str:
    return f"({' OR '.join(f'''array_has({column}, '{name}')''' for name in names)})"


def parse_query(text: str, info: StoreInfo) -> Query:
    """Take a question apart.

    Raises:
        ConfigError: it filters by something that the archive does not measure.
    """
    filters, rest = _take_filters(text, info)
    mentions = [(mention, _known_organs(mention, info)) for mention in _organ_mentions(rest)]
    known = [(mention, names) for mention, names in mentions if names]
    return Query(
        text=rest,
        filters=tuple(filters),
        organs=tuple(dict.fromkeys(names for mention, names in known if not mention.denied)),
        absent=tuple(dict.fromkeys(names for mention, names in known if mention.denied)),
        regions=tuple(dict.fromkeys(_region_mentions(rest))),
        sizes=tuple((names, mention.size) for mention, names in known if mention.size),
        unknown=tuple(dict.fromkeys(mention.organ for mention, names in mentions if not names)),
        facts=read_words(rest),
    )


@dataclass(frozen=True)
class _Mention:
    """A word for an organ, the side, size and denial that stand beside it, and where it stands."""

    organ: str
    side: str
    size: str
    denied: bool
    start: int
    end: int


_DENIAL = re.compile(
    r"(?:\b(?:no|without|absent|missing)|无|没有|未见)\s*(?:(?:the|a|any|right|left|右侧?|左侧?)\s*)*$", re.I
)
_BETWEEN = re.compile(r"(?:\s|and|the|right|left|-sided|侧|右|左)*", re.I)
_VERB = re.compile(r"\s*(?:is|are|was|were|appears?|looks?)?\s*", re.I)


def _organ_mentions(text: str) -> list[_Mention]:
    found = []
    for match in pattern("organs").finditer(text):
        before, after = text[max(0, match.start() - 24) : match.start()], text[match.end() : match.end() + 24]
        organ = names_by_word("organs")[match[0].lower()]
        side, size, denied = _side(before, after), _size(before, after), _DENIAL.search(before) is not None
        found.append(_Mention(organ, side, size, denied, match.start(), match.end()))
    return found


def _size(before: str, after: str) -> str:
    """'enlarged right parotid', or 'parotid is large'; empty where neither is said."""
    sizes = names_by_word("sizes")
    ahead = list(pattern("sizes").finditer(before))
    if ahead and _BETWEEN.fullmatch(before, ahead[-1].end()):
        found = sizes[ahead[-1][0].lower()]
    else:
        verb = _VERB.match(after)
        behind = pattern("sizes").match(after, verb.end() if verb else 0)
        found = sizes[behind[0].lower()] if behind else ""
    return "" if found == "normal" else found


def _side(before: str, after: str) -> str:
    """'right parotid', or 'parotid on the right'."""
    sides = names_by_word("sides")
    ahead = [match[0].lower() for match in pattern("sides").finditer(before)]
    if ahead and re.search(rf"{re.escape(ahead[-1])}(?:\s|侧|-sided)*$", before, re.I):
        return sides[ahead[-1]]
    behind = re.match(r"\s*(?:on|of) the (right|left)", after, re.I)
    return behind[1].lower() if behind else ""


def _known_organs(mention: _Mention, info: StoreInfo) -> tuple[str, ...]:
    """Names of the archive's label tables that a mention can mean; none where the archive knows no such organ."""
    wanted = f"{mention.organ}_{mention.side}" if mention.side else mention.organ
    if wanted in info.organs:
        return (wanted,)
    sides = tuple(f"{mention.organ}_{side}" for side in ("right", "left"))
    if mention.side:
        return (mention.organ,) if mention.organ in info.organs else ()
    return tuple(name for name in sides if name in info.organs)


def _region_mentions(text: str) -> list[str]:
    return [names_by_word("regions")[match[0].lower()] for match in pattern("regions").finditer(text)]


def _take_filters(text: str, info: StoreInfo) -> tuple[list[Filter], str]:
    """Every comparison with a number and a unit, or a sign and a number; and the text without them."""
    filters, taken = [], []
    for match in _comparison().finditer(text):
        unit = names_by_word("units").get((match["unit"] or "").lower(), "")
        comparison = names_by_word("comparisons")[match["comparison"].lower()]
        if not unit and match["comparison"] not in (">", "<", ">=", "<=", "≥", "≤"):
            continue
        limit = float(match["number"].replace(",", "."))
        subject = _subject(text, match, unit, info)
        if subject is None:
            continue
        measures, factor, span = subject
        filters.append(Filter(measures, comparison, limit * factor))
        taken.append(span)
    rest = text
    for start, end in sorted(taken, reverse=True):
        rest = rest[:start] + rest[end:]
    return filters, " ".join(rest.split()).strip(" ,;，；")


def _comparison() -> re.Pattern[str]:
    comparisons, units = pattern("comparisons").pattern, pattern("units").pattern
    return re.compile(rf"(?P<comparison>{comparisons})\s*{_NUMBER}\s*(?P<unit>{units})?", re.I)


_Subject = tuple[tuple[str, ...], float, tuple[int, int]]


def _subject(text: str, match: re.Match[str], unit: str, info: StoreInfo) -> _Subject | None:
    """What is compared: the organ or property of the scan that stands nearest before, else after."""
    mentions = _organ_mentions(text)
    before = [m for m in mentions if m.end <= match.start() and not re.search(r"[,;，；]", text[m.end : match.start()])]
    organ = before[-1] if before else next((m for m in mentions if m.start >= match.end()), None)
    if unit in _TO_MM or organ is None:
        return _scan_subject(text, match, unit)
    names = _known_organs(organ, info)
    kind = "hu" if unit == "hu" else "ml"
    if not names:
        known = ", ".join(sorted({name.removesuffix("_right").removesuffix("_left") for name in info.organs})) or "none"
        raise ConfigError(
            f"The archive has not measured {title(organ.organ)!r}.",
            advice=f"Its organs: {known}; `vlretrieval index --segmenter` takes another model.",
        )
    start, end = min(organ.start, match.start()), max(organ.end, match.end())
    keep = (match.start(), match.end()) if organ.start >= match.end() or before else (start, end)
    return tuple(f"{name}_{kind}" for name in names), _TO_ML.get(unit, 1.0), keep


def _scan_subject(text: str, match: re.Match[str], unit: str) -> _Subject | None:
    """Length, slices or field; None where words ("over 5 cm") say nothing that is measured: they remain words."""
    clause = text[: match.start()]
    for measure, words in _SCAN:
        found = list(words.finditer(clause))
        if found:
            return (measure,), _TO_MM.get(unit or "mm", 1.0), (found[-1].start(), match.end())
    if match["comparison"].isalpha() or " " in match["comparison"]:
        return None
    raise ConfigError(
        f"{match[0]!r}: it is not said what is compared.",
        advice="Write an organ before it, e.g. 'right parotid > 30 ml', or 'slice thickness <= 3 mm'.",
    )
