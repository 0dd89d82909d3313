"""What a person types -> filters, organs, parts of the body, facts and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlretrieval.facts.kinds import Facts
from vlretrieval.facts.reader import read_words
from vlretrieval.limits import Filter, take_limits
from vlretrieval.mentions import Mention, find_mentions, known_organs
from vlretrieval.store.schema import StoreInfo

_Named = tuple[Mention, tuple[str, ...]]


@dataclass(frozen=True)
class Query:
    """A question, taken apart.

    Attributes:
        text: what remains when filters are taken out.
        filters: on measures.
        organs: of the archive's label tables that are named; each tuple holds what one word can mean
            or what "or" joins.
        absent: that are denied ("no spleen"), in the same way.
        parts: of the body that are named; each tuple holds one, or those that "or" joins.
        absent_parts: that are denied ("no chest").
        sizes: organs that are called `large` or `small`.
        unknown: organs that are named and that the archive's segmenter does not know.
        facts: that are stated.
    """

    text: str
    filters: tuple[Filter, ...] = ()
    organs: tuple[tuple[str, ...], ...] = ()
    absent: tuple[tuple[str, ...], ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    absent_parts: tuple[str, ...] = ()
    sizes: tuple[tuple[tuple[str, ...], str], ...] = ()
    unknown: tuple[str, ...] = ()
    facts: Facts | None = None

    @property
    def regions(self) -> tuple[str, ...]:
        """Parts of the body that are named, one by one."""
        return tuple(dict.fromkeys(region for regions in self.parts for region in regions))

    def where(self) -> str | None:
        """SQL that a study has to pass; None where nothing is asked."""
        clauses = [condition.sql() for condition in self.filters]
        clauses += [_any("organs", names) for names in self.organs]
        clauses += [f"NOT {_any('organs', names)}" for names in self.absent]
        clauses += [_any("regions", regions) for regions in self.parts]
        clauses += [f"NOT {_any('regions', [region])}" for region in self.absent_parts]
        return " AND ".join(clauses) or None


def _any(column: str, names: Sequence[str]) -> str:
    return f"({' OR '.join(f'''array_has({column}, '{name}')''' for name in names)})"


def parse_query(text: str, info: StoreInfo) -> Query:
    """Take a question apart.

    Raises:
        ConfigError: it filters by something that the archive does not measure, or by a limit that is not understood.
    """
    filters, rest = take_limits(text, info)
    named = [(mention, _names(mention, info)) for mention in find_mentions(rest)]
    organs = [(mention, names) for mention, names in named if mention.group == "organs"]
    parts = _asked(named, "regions")
    shown = {region for regions in parts for region in regions}
    denied = (mention.name for mention, _ in named if mention.group == "regions" and mention.denied)
    return Query(
        text=rest,
        filters=tuple(filters),
        organs=_asked(named, "organs"),
        absent=tuple(dict.fromkeys(names for mention, names in organs if names and mention.denied)),
        parts=parts,
        # "Abdomen, no pelvis": an archive cannot tell them apart.
        absent_parts=tuple(dict.fromkeys(region for region in denied if region not in shown)),
        sizes=tuple(
            (names, mention.size) for mention, names in organs if names and mention.size and not mention.denied
        ),
        unknown=tuple(dict.fromkeys(mention.name for mention, names in organs if not names)),
        facts=read_words(rest),
    )


def _names(mention: Mention, info: StoreInfo) -> tuple[str, ...]:
    return known_organs(mention, info) if mention.group == "organs" else (mention.name,)


def _asked(named: Sequence[_Named], group: str) -> tuple[tuple[str, ...], ...]:
    """Names of a group that have to be there; those that "or" joins are alternatives."""
    asked: list[tuple[str, ...]] = []
    before: Mention | None = None
    for mention, names in named:
        if mention.group == group and not mention.denied:
            goes_on = mention.joint == "or" and before and before.group == group and not before.denied
            asked.append((asked.pop() if goes_on else ()) + names)
        before = mention
    return tuple(dict.fromkeys(tuple(dict.fromkeys(names)) for names in asked if names))
