"""Measures with a limit in a question: "right parotid > 30 ml", "层厚不大于3毫米"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

from medseg.errors import ConfigError
from vlretrieval.lexicon import names_by_word, pattern, title
from vlretrieval.mentions import Mention, adjectives, find_mentions, known_organs, read_ahead
from vlretrieval.store.schema import StoreInfo

_TO_MM = {"mm": 1.0, "cm": 10.0}
_TO_ML = {"ml": 1.0, "litre": 1000.0}
_NUMBER = r"(?P<number>-?\d+(?:[.,]\d+)*)"
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL = re.compile(r"-?\d+(?:[.,]\d+)?")
_DENIAL = re.compile(
    r"(?:(?:(?<![a-z])(?:not|no|never|cannot)|n['’]t)\s+(?:be\s+)?"
    r"|(?:不|没有|没|未|无|非)(?:得|能|应|会|可|要|宜|该|应该|能够|可以|是)?\s*)$",
    re.I,
)
_CLAUSE = re.compile(r"[,;，；。]|\.\s")
_GOES_ON = re.compile(r"\s*(?:,|，)?\s*(?:and|but|&|且|并且|而且|和|但)?\s*", re.I)


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
class _Subject:
    """What is compared, and where it is named: a measure of the scan, or else an organ."""

    start: int
    end: int
    scan: str = ""
    organ: Mention | None = None

    def fits(self, unit: str) -> bool:
        return not unit or (unit in _TO_MM) == bool(self.scan)


def take_limits(text: str, info: StoreInfo) -> tuple[list[Filter], str]:
    """Every comparison with a number and a unit, or a sign and a number; and the text without them.

    Words that say nothing that is measured ("a mass over 5 cm") stay in the text.

    Raises:
        ConfigError: what is compared is not said or not measured, the number cannot be read, or a denial stands before.
    """
    subjects = _subjects(text)
    filters: list[Filter] = []
    taken: list[tuple[int, int]] = []
    last: _Subject | None = None
    for limit in _limits(text):
        subject = _subject(text, limit, subjects, last, taken[-1][1] if taken else 0)
        if subject is None:
            continue
        _refuse_denied(text, limit, subject)
        filters.append(Filter(*_measured(limit, subject, info)))
        taken.append((subject.start if subject.scan else limit.start(), limit.end()))
        last = subject
    return filters, _without(text, taken)


@cache
def _comparison() -> re.Pattern[str]:
    comparisons, units = pattern("comparisons").pattern, pattern("units").pattern
    return re.compile(rf"(?P<comparison>{comparisons})\s*{_NUMBER}\s*(?P<unit>{units})?", re.I)


def _limits(text: str) -> Iterator[re.Match[str]]:
    return (match for match in _comparison().finditer(text) if match["unit"] or _is_sign(match))


def _is_sign(limit: re.Match[str]) -> bool:
    return not any(letter.isalpha() for letter in limit["comparison"])


def _unit(limit: re.Match[str]) -> str:
    return names_by_word("units")[limit["unit"].lower()] if limit["unit"] else ""


def _subjects(text: str) -> list[_Subject]:
    """Everything in a text that can have a limit, in order."""
    scan = [
        _Subject(match.start(), match.end(), scan=names_by_word("scan")[match[0].lower()])
        for match in pattern("scan").finditer(text.replace("_", " "))
    ]
    organs = [
        _Subject(mention.start, mention.end, organ=mention)
        for mention in find_mentions(text)
        if mention.group == "organs"
    ]
    return sorted(scan + organs, key=lambda subject: subject.start)


def _subject(
    text: str, limit: re.Match[str], subjects: Sequence[_Subject], last: _Subject | None, edge: int
) -> _Subject | None:
    """What has the limit: the nearest before it in its clause, what had the last one, or the organ behind it.

    Args:
        last: what had the limit before.
        edge: where that limit ended.
    """
    unit = _unit(limit)
    clause = max([edge, *(comma.end() for comma in _CLAUSE.finditer(text, edge, limit.start()))])
    near = [subject for subject in subjects if clause <= subject.start and subject.end <= limit.start()]
    if fitting := [subject for subject in near if subject.fits(unit)]:
        return fitting[-1]
    if last and last.fits(unit) and _GOES_ON.fullmatch(text, edge, limit.start()):
        return last
    behind = _behind(text, limit, subjects)
    if behind is None and _is_sign(limit):
        _refuse(limit, near)
    return behind


def _behind(text: str, limit: re.Match[str], subjects: Sequence[_Subject]) -> _Subject | None:
    """The organ of "more than 300 ml of spleen", with nothing but its side and size between."""
    near = re.compile(rf"\s*(?:of(?![a-z]))?{adjectives()}", re.I)
    for subject in subjects:
        if subject.organ and subject.start >= limit.end():
            fits = subject.fits(_unit(limit)) and near.fullmatch(text, limit.end(), subject.start)
            return subject if fits else None
    return None


def _refuse(limit: re.Match[str], near: Sequence[_Subject]) -> NoReturn:
    """Raise that nothing is named that has such a unit."""
    if not near:
        raise ConfigError(
            f"{limit[0]!r}: it is not said what is compared.",
            advice="Write an organ before it, e.g. 'right parotid > 30 ml', or 'slice thickness <= 3 mm'.",
        )
    organ = near[-1].organ
    name, units = (title(organ.name), "ml or HU") if organ else (near[-1].scan.removesuffix("_mm"), "mm or cm")
    raise ConfigError(f"{limit[0]!r}: {name} is not measured in {limit['unit']}.", advice=f"It is measured in {units}.")


def _refuse_denied(text: str, limit: re.Match[str], subject: _Subject) -> None:
    """Raise where a denial would turn the limit round: "not > 3 mm", "no spleen over 300 ml"."""
    denial = _DENIAL.search(text, max(0, limit.start() - 16), limit.start())
    ahead = read_ahead(text, subject.start)
    if denial is None and not ahead.denial:
        return
    start = denial.start() if denial else min(ahead.start, limit.start())
    raise ConfigError(
        f"{text[start : limit.end()]!r}: a limit that is denied is not understood.",
        advice="Say what has to hold, e.g. 'slice thickness <= 3 mm', 'no more than 3 mm', 'at least 300 ml'.",
    )


def _measured(limit: re.Match[str], subject: _Subject, info: StoreInfo) -> tuple[tuple[str, ...], str, float]:
    """Measures, comparison and limit in mm, ml or HU; without a unit mm of the scan and ml of organs are meant."""
    unit, number = _unit(limit), _number(limit)
    comparison = names_by_word("comparisons")[limit["comparison"].lower()]
    organ = subject.organ
    if organ is None:
        return (subject.scan,), comparison, number * _TO_MM[unit or "mm"]
    names = known_organs(organ, info)
    if not names:
        known = ", ".join(sorted({name.removesuffix("_right").removesuffix("_left") for name in info.organs})) or "none"
        raise ConfigError(
            f"The archive has not measured {title(organ.name)!r}.",
            advice=f"Its organs: {known}; `vlretrieval index --segmenter` takes another model.",
        )
    kind = "hu" if "hu" in (unit, organ.measure if not unit else "") else "ml"
    return tuple(f"{name}_{kind}" for name in names), comparison, number * _TO_ML.get(unit, 1.0)


def _number(limit: re.Match[str]) -> float:
    """1,500 and 1,500.5 have thousands; 1.5 and 1,5 are one and a half."""
    words = limit["number"]
    if _THOUSANDS.fullmatch(words):
        return float(words.replace(",", ""))
    if _DECIMAL.fullmatch(words):
        return float(words.replace(",", "."))
    raise ConfigError(f"{limit[0]!r}: {words!r} cannot be read as a number.", advice="Write it as 1500 or 1500.5.")


def _without(text: str, taken: Sequence[tuple[int, int]]) -> str:
    """The text without spans, which may overlap."""
    rest, edge = "", 0
    for start, end in sorted(taken):
        rest += text[edge:start]
        edge = max(edge, end)
    return " ".join((rest + text[edge:]).split()).strip(" ,;，；")
