"""Organs in numbers: the table, the histograms, and what a comparison says."""

from __future__ import annotations

from html import escape

import streamlit as st

from app.references import Reference, reference_for
from app.results import Histogram, OrganRow, Result
from app.text import name_of, say, volume_text

_COLUMNS = ("organ", "volume", "reference", "hu", "extent", "slices", "edge", "certainty")
_HINTS = ("reference", "extent", "certainty")
_WIDTH, _HEIGHT = 240.0, 64.0
_ARROWS = {"below": "↓", "above": "↑"}


def show_table(result: Result) -> None:
    """One row per organ of the model, those that were not found included, and the sources of the references."""
    references = {row.name: reference_for(row.name, result.model, result.version) for row in result.organs}
    sources = list(dict.fromkeys(reference.source for reference in references.values() if reference))
    head = "".join(f"<th{_hint(column)}>{escape(say(f'table.{column}'))}</th>" for column in _COLUMNS)
    rows = "".join(_row(row, references[row.name], sources, result) for row in result.organs)
    notes = "".join(f"<p>[{number}] {escape(source)}</p>" for number, source in enumerate(sources, 1))
    table = f'<table class="organs" id="organ-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    st.html(f'<div class="scroller">{table}</div><div class="notes">{notes}</div>')


def _hint(column: str) -> str:
    return f' title="{escape(say(f"table.{column}.help"))}"' if column in _HINTS else ""


def _row(row: OrganRow, reference: Reference | None, sources: list[str], result: Result) -> str:
    cells = "".join(f"<td>{cell}</td>" for cell in _cells(row, reference, sources, result))
    kind = ' class="absent"' if row.volume_ml == 0 else ""
    return f'<tr data-organ="{escape(row.name)}"{kind}>{cells}</tr>'


def _cells(row: OrganRow, reference: Reference | None, sources: list[str], result: Result) -> list[str]:
    organ, none = swatch(row.colour) + escape(name_of("organ", row.name)), say("table.none")
    if row.volume_ml == 0:
        return [organ, escape(say("table.absent")), _range(reference, sources), none, none, none, none, none]
    hu = none if row.mean_hu is None else f"{row.mean_hu:.0f} ± {row.sd_hu or 0:.0f}".replace("-", "−")
    return [
        organ,
        volume_text(row.volume_ml) + _verdict(row, reference),
        _range(reference, sources),
        hu,
        " × ".join(f"{side:.0f}" for side in row.extent_mm),
        str(row.slices),
        _edge(row),
        _certainty(row, result),
    ]


def swatch(colour: tuple[int, int, int]) -> str:
    """A square of that colour."""
    red, green, blue = colour
    return f'<span class="swatch" style="background-color:rgb({red},{green},{blue})"></span>'


def _verdict(row: OrganRow, reference: Reference | None) -> str:
    verdict = reference.verdict(row.volume_ml, cut_off=row.touches_edge) if reference else ""
    if verdict not in _ARROWS:
        return ""
    words = escape(say("table.below") if verdict == "below" else say("table.above"))
    return f'<span class="arrow beyond" title="{words}">{_ARROWS[verdict]} {words}</span>'


def _range(reference: Reference | None, sources: list[str]) -> str:
    if reference is None:
        return say("table.none")
    number = sources.index(reference.source) + 1
    return f"{volume_text(reference.low_ml)}–{volume_text(reference.high_ml)}<sup>[{number}]</sup>"


def _edge(row: OrganRow) -> str:
    if row.touches_edge:
        return f'<span class="edge">{escape(say("table.edge.yes"))}</span>'
    return escape(say("table.edge.no"))


def _certainty(row: OrganRow, result: Result) -> str:
    if row.mean_probability is not None:
        return f"{row.mean_probability:.2f}"
    drawn = row.name in result.corrected.get("organs", [])
    return escape(say("table.drawn")) if drawn else say("table.none")


def show_histograms(result: Result) -> None:
    """HU of every organ, each on its own scale."""
    st.caption(say("result.histograms.help"))
    figures = "".join(
        _figure(row, result.histograms[row.value]) for row in result.organs if row.value in result.histograms
    )
    st.html(f'<div class="histograms">{figures}</div>')


def _figure(row: OrganRow, histogram: Histogram) -> str:
    title = escape(name_of("organ", row.name))
    chart = _chart(histogram, row)
    return (
        f'<figure data-organ="{escape(row.name)}"><figcaption>{swatch(row.colour)}{title}</figcaption>{chart}</figure>'
    )


def _chart(histogram: Histogram, row: OrganRow) -> str:
    top, step = max(histogram.counts) or 1, _WIDTH / len(histogram.counts)
    red, green, blue = row.colour
    bars = "".join(
        f'<rect x="{number * step:.2f}" y="{_HEIGHT * (1 - count / top):.2f}" width="{step * 0.92:.2f}" '
        f'height="{_HEIGHT * count / top:.2f}"/>'
        for number, count in enumerate(histogram.counts)
    )
    label = f"{name_of('organ', row.name)}: {histogram.low:.0f} … {histogram.high:.0f} HU"
    axis = f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>'
    ends = (
        f'<text x="0" y="{_HEIGHT + 12}">{histogram.low:.0f}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 12}" text-anchor="end">{histogram.high:.0f} HU</text>'
    )
    fill = (
        f'<g fill="rgb({red},{green},{blue})" stroke="currentColor" stroke-opacity=".25" stroke-width=".4">{bars}</g>'
    )
    box = f'viewBox="0 0 {_WIDTH:.0f} {_HEIGHT + 16:.0f}"'
    return f'<svg {box} role="img" aria-label="{escape(label)}">{fill}{axis}{ends}</svg>'
