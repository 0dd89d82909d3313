"""Studies that a search has found: what they look like, and why they were found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from app.text import name_of, say
from app.widgets.problems import plain
from app.widgets.style import base_path

_SHOWN_ORGANS = 12


def show_hits(number: str, facts: Mapping[str, Any], *, like: bool, opened: Callable[[Path, str], None]) -> None:
    """The hits of an answer as cards, the best first.

    Args:
        number: of the answer.
        facts: what it holds.
        like: it was asked by example: scores are cosines.
        opened: called with path and name of a study that is to be opened.
    """
    hits = facts["hits"]
    if not hits:
        st.info(say("search.nothing"), icon=":material/search_off:")
    for note in facts["notes"]:
        st.caption(plain(note))
    if hits:
        st.caption(say("search.found", count=len(hits)))
    for hit in hits:
        with st.container(border=True):
            left, right = st.columns([8, 1], vertical_alignment="center")
            left.html(_card(number, hit, like=like))
            if right.button(say("search.open"), key=f"open-{hit['rank']}", help=say("search.open.help")):
                opened(Path(hit["path"]), hit["name"])


def _card(number: str, hit: Mapping[str, Any], *, like: bool) -> str:
    picture = f"{base_path()}/found/{number}/{hit['rank']}.png"
    shows = ", ".join(name_of("region", region) for region in hit["regions"])
    score = _score(hit["score"], like=like)
    reasons = "".join(_chip(reason["kind"], text) for reason in hit["reasons"] if (text := _reason(reason, hit)))
    words = f"<p>{escape(hit['text'])}</p>" + (f"<p>{escape(hit['report'])}</p>" if hit["report"] else "")
    return (
        f'<article class="hit" data-study="{escape(hit["name"])}">'
        f'<img src="{picture}" alt="{escape(say("search.thumbnail", name=hit["name"]))}" loading="lazy"><div>'
        f"<h3>{hit['rank']}. {escape(hit['name'])}</h3>"
        f'<p class="about">{escape(" · ".join(part for part in (shows, _scanned(hit), score) if part))}</p>'
        f'<ul class="why" aria-label="{escape(say("search.why"))}">{reasons}</ul>'
        f"<details><summary>{escape(say('search.more'))}</summary>{_organs(hit)}{words}</details></div></article>"
    )


def _chip(kind: str, text: str) -> str:
    return f'<li data-kind="{kind}"><b>{escape(say(f"search.why.{kind}"))}</b> {escape(text)}</li>'


def _score(score: float, *, like: bool) -> str:
    if like:
        return say("search.cosine", score=score)
    return say("search.score", score=score) if score > 0 else ""


def _scanned(hit: Mapping[str, Any]) -> str:
    measures = hit["measures"]
    if "length_mm" not in measures or "slice_mm" not in measures:
        return ""
    return say("search.scanned", length=measures["length_mm"] / 10, slice=measures["slice_mm"])


def _reason(reason: Mapping[str, Any], hit: Mapping[str, Any]) -> str:
    """In the visitor's language where it is about something that has a name there."""
    match reason["kind"]:
        case "organ":
            return ", ".join(_organ(name, hit) for name in reason["names"])
        case "region":
            return ", ".join(name_of("region", name) for name in reason["names"]) or say("search.why.elsewhere")
        case "likeness" | "likely":
            return ", ".join(reason["names"])
        case "match":
            return ", ".join(name_of("fact", name) for name in reason["names"])
        case "filter":
            return ", ".join(_measured(name, hit) for name in reason["names"] if name in hit["measures"])
    return str(reason["text"])


def _organ(name: str, hit: Mapping[str, Any]) -> str:
    volume = hit["measures"].get(f"{name}_ml")
    return name_of("organ", name) + ("" if volume is None else f" {volume:.1f} ml")


def _measured(measure: str, hit: Mapping[str, Any]) -> str:
    name, _, unit = measure.rpartition("_")
    value = hit["measures"][measure]
    if unit == "mm":
        return f"{name_of('measure', name)} {value:g} mm"
    return f"{name_of('organ', name)} {value:g} {'HU' if unit == 'hu' else unit}"


def _organs(hit: Mapping[str, Any]) -> str:
    chips = "".join(f"<li>{escape(_organ(name, hit))}</li>" for name in hit["organs"][:_SHOWN_ORGANS])
    return f'<ul class="chips">{chips}</ul>' if chips else ""
