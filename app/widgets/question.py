"""A question to an archive: words, an example, and filters that are put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from app.text import name_of, say
from vlretrieval.lexicon import title, words_of


@dataclass(frozen=True)
class Filters:
    """What every hit has to pass; '' and None ask for nothing."""

    regions: tuple[str, ...] = ()
    organ: str = ""
    least_ml: float | None = None
    most_ml: float | None = None
    slice_mm: float | None = None

    def clauses(self) -> list[str]:
        """In the words that an archive understands."""
        regions = " or ".join(words_of("regions")[region][0] for region in self.regions)
        organ = title(self.organ) if self.organ else ""
        limits = [f"{organ} ≥ {self.least_ml:g} ml"] if organ and self.least_ml is not None else []
        limits += [f"{organ} ≤ {self.most_ml:g} ml"] if organ and self.most_ml is not None else []
        slices = f"slice thickness ≤ {self.slice_mm:g} mm" if self.slice_mm is not None else ""
        return [clause for clause in (regions, *(limits or [organ]), slices) if clause]


@dataclass(frozen=True)
class Question:
    """What a visitor asks.

    Attributes:
        words: as they were typed.
        like: id of a study of the visitor's; '' for a question in words.
        organ: compare this organ alone; '' compares the whole.
    """

    words: str
    like: str
    organ: str
    filters: Filters

    def sentence(self) -> str:
        """Words and filters in one sentence, which is also shown above the answer."""
        return ", ".join(part for part in (self.words, *self.filters.clauses()) if part)


def ask_filters(regions: Sequence[str], organs: Sequence[str]) -> Filters:
    """Let the visitor choose among what the archive holds."""
    chosen = st.multiselect(
        say("search.regions"),
        regions,
        format_func=lambda region: name_of("region", region),
        key="search-regions",
        placeholder=say("intake.choose"),
    )
    first, second, third, fourth = st.columns([2, 1, 1, 1], vertical_alignment="bottom")
    with first:
        organ = st.selectbox(
            say("search.shows"),
            ["", *organs],
            format_func=lambda name: name_of("organ", name) if name else say("search.any"),
            key="search-shows",
        )
    with second:
        least = _number(say("search.least"), "search-least")
    with third:
        most = _number(say("search.most"), "search-most")
    with fourth:
        slices = _number(say("search.slices"), "search-slices")
    return Filters(tuple(chosen), str(organ or ""), least, most, slices)


def _number(words: str, key: str) -> float | None:
    value = st.number_input(words, min_value=0.0, value=None, step=1.0, format="%g", key=key)
    return None if value is None else float(value)
