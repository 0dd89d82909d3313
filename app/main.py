"""The page's frame: `make run` serves it through `app/server.py`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.gate import guard
from app.language import choose_language, settle_language
from app.text import language, say
from app.widgets.style import page_style

# Not called "pages": until this file has run once, Streamlit would serve such a folder's files without it and its gate.
PAGES = Path(__file__).with_name("views")
# In this order in the menu. A page is there when its file is: `search` comes with vlretrieval.
NAMES = ("segment", "jobs", "models", "search")

settle_language()
# A picture of our own: Streamlit fetches ":material/...:" page icons from the internet.
st.set_page_config(page_title=say("app.tab"), page_icon=Path(__file__).with_name("icon.png"), layout="wide")
_pages = [
    st.Page(PAGES / f"{name}.py", title=say(f"nav.{name}"), default=name == "segment")
    for name in NAMES
    if (PAGES / f"{name}.py").is_file()
]
_chosen = st.navigation(_pages, position="top")
with st.container(horizontal=True, key="language-row"):
    st.html(f'{page_style()}<span id="medseg-language" lang="{"zh-Hans" if language() == "zh" else "en"}"></span>')
    choose_language()
guard()
_chosen.run()
