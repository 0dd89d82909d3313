"""What a scan is, in facts that name nobody."""

from __future__ import annotations

from html import escape

import streamlit as st

from app.scans import Scan
from app.studies import StudyView
from app.text import name_of, say
from app.widgets.problems import show_remarks


def show_summary(view: StudyView) -> None:
    """Format, size, place, range of HU; and the remarks of the intake (its warnings stand above the picture)."""
    scan = view.scan
    if scan is None:
        return
    st.markdown(f"**{say('study.summary')}**")
    facts = _facts(scan)
    rows = "".join(
        f"<span>{escape(say(f'scan.{key}'))}</span><span{_hint(key)}>{escape(text)}</span>"
        for key, text in facts.items()
    )
    st.html(f'<div class="facts">{rows}</div>')
    show_remarks(scan.notes)
    if not scan.notes:
        st.caption(say("scan.notes.none"))


def in_one_line(view: StudyView) -> str:
    """The most important of it."""
    if view.scan is None:
        return ""
    facts = _facts(view.scan)
    spacing, extent = f"{facts['spacing']} mm", f"{facts['extent']} cm"
    return " · ".join((facts["format"], facts["size"], spacing, extent))


def _facts(scan: Scan) -> dict[str, str]:
    low, high = scan.facts["hu_range"]
    extent = [count * step / 10 for count, step in zip(scan.shape, scan.spacing_mm, strict=True)]
    return {
        "format": name_of("format", scan.facts["format"]),
        "size": " × ".join(str(n) for n in scan.facts["stored_shape"]),
        "spacing": " × ".join(f"{mm:.2f}" for mm in scan.facts["stored_spacing_mm"]),
        "extent": " × ".join(f"{cm:.0f}" for cm in extent),
        "orientation": scan.facts["orientation"],
        "hu": f"{low} … {high}".replace("-", "−"),
    }


def _hint(key: str) -> str:
    return f' title="{escape(say("scan.extent.help"))}"' if key == "extent" else ""
