"""How any page opens a scan in the viewer: the search page, the batches, or whatever comes."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.desk import desk, visitor

_SEGMENT = Path(__file__).with_name("views") / "segment.py"


def open_scan(path: Path, title: str = "") -> None:
    """Open a scan that lies on the server in the viewer; the page changes.

    Raises:
        Refused: nothing is there.
    """
    show_study(desk().take_path(path, visitor(), title))


def open_result(path: Path, folder: Path, model: str, series: str | None = None) -> None:
    """Open a scan with a finished result of it in the viewer; the page changes.

    Raises:
        Refused: the scan is not there.
    """
    show_study(desk().take_result(path, folder, visitor(), model, series))


def show_study(study: str) -> None:
    """Go to the page of a study of this visitor."""
    st.switch_page(_SEGMENT, query_params={"study": study, **_language()})


def _language() -> dict[str, str]:
    chosen = st.query_params.get("lang")
    return {"lang": chosen} if chosen else {}
