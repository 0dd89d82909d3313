"""What the theme in .streamlit/config.toml cannot say, and the letters for those who lack them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import streamlit as st

from app.routes import PREFIX, asset_version
from app.text import say

_FONT = """
@font-face {{ font-family: "Noto Sans SC"; src: local("Noto Sans SC"), local("Noto Sans CJK SC"), url("{url}");
  unicode-range: U+2E80-9FFF, U+FF00-FFEF, U+3000-303F; font-display: swap; }}
"""


def base_path() -> str:
    """Where the server's own routes begin, behind a proxy too."""
    prefix = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{prefix}{PREFIX}" if prefix else PREFIX


def assets_path() -> str:
    """Where the viewer's program lies, under a name that changes with it."""
    return f"{base_path()}/viewer/{asset_version()}"


def page_style() -> str:
    """The style sheet of the page; the font is fetched only where Chinese is shown and the computer has no font."""
    font = _FONT.format(url=f"{assets_path()}/font.ttf")
    # Streamlit's uploader speaks English only: its words are replaced by the style sheet.
    words = f':root {{ --choose: "{say("intake.choose")}"; --drop: "{say("intake.drop")}"; }}'
    return f"<style>{font}{words}{_sheet()}</style>"


@lru_cache(maxsize=1)
def _sheet() -> str:
    return Path(__file__).parents[1].joinpath("page.css").read_text("utf-8")
