"""A finished study: what a reader should know, the pictures, the table, the files."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import streamlit as st

from app.results import OrganRow, Result
from app.text import name_of, say
from app.widgets.problems import plain

_COLUMNS = ("organ", "volume", "hu", "extent", "slices", "edge", "certainty")


def show_findings(result: Result) -> None:
    """Warnings in full; remarks without alarm."""
    if not any(row.volume_ml > 0 for row in result.organs):
        st.warning(say("result.nothing"), icon=":material/search_off:")
    for note in result.notes:
        if note.severity == "warning":
            st.warning(plain(note.message), icon=":material/warning:")
    remarks = [plain(note.message) for note in result.notes if note.severity != "warning"]
    if remarks:
        st.info("\n\n".join(remarks), icon=":material/info:")


def show_table(result: Result) -> None:
    """One row per organ of the model, those that were not found included."""
    head = "".join(f"<th{_hint(column)}>{escape(say(f'table.{column}'))}</th>" for column in _COLUMNS)
    rows = "".join(_row(row) for row in result.organs)
    st.html(f'<table class="organs"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>')


def _hint(column: str) -> str:
    return f' title="{escape(say("table.extent.help"))}"' if column == "extent" else ""


def _row(row: OrganRow) -> str:
    cells = "".join(f"<td>{cell}</td>" for cell in _cells(row))
    kind = ' class="absent"' if row.volume_ml == 0 else ""
    return f'<tr data-organ="{escape(row.name)}"{kind}>{cells}</tr>'


def _cells(row: OrganRow) -> list[str]:
    red, green, blue = row.colour
    swatch = f'<span class="swatch" style="background-color:rgb({red},{green},{blue})"></span>'
    organ = swatch + escape(name_of("organ", row.name))
    none = say("table.none")
    if row.volume_ml == 0:
        return [organ, escape(say("table.absent")), none, none, none, none, none]
    hu = none if row.mean_hu is None else f"{row.mean_hu:.0f} ± {row.sd_hu or 0:.0f}".replace("-", "−")
    extent = " × ".join(f"{side:.0f}" for side in row.extent_mm)
    certainty = none if row.mean_probability is None else f"{row.mean_probability:.2f}"
    return [organ, volume_text(row.volume_ml), hu, extent, str(row.slices), _edge(row), certainty]


def volume_text(volume_ml: float) -> str:
    """Three digits that matter: 0.42, 12.3, 1,234."""
    digits = 2 if volume_ml < 1 else 1 if volume_ml < 1000 else 0
    return f"{volume_ml:,.{digits}f}"


def _edge(row: OrganRow) -> str:
    if row.touches_edge:
        return f'<span class="edge">{escape(say("table.edge.yes"))}</span>'
    return escape(say("table.edge.no"))


def show_downloads(result: Result) -> None:
    """The result's files, each under a name of its own: two studies never share a download's identity."""
    stem = f"{result.model}_{result.study[:8]}"
    files = [
        ("mask", "mask.nii.gz", "application/gzip"),
        ("table", "measurements.csv", "text/csv"),
        ("preview", "preview.png", "image/png"),
        ("report", "run.json", "application/json"),
    ]
    with st.container(horizontal=True):
        _button("all", result.archive, f"{stem}.zip", "application/zip", primary=True)
        for key, name, mime in files:
            path = result.folder / name
            _button(key, path, f"{stem}_{name}", mime)


def _button(key: str, data: Path | Callable[[], bytes], name: str, mime: str, *, primary: bool = False) -> None:
    # Read when clicked: a rerun of the page costs no copy of the files.
    st.download_button(
        say(f"result.{key}"),
        data.read_bytes if isinstance(data, Path) else data,
        name,
        mime,
        key=f"download-{name}",
        on_click="ignore",
        type="primary" if primary else "secondary",
        icon=":material/download:",
    )
