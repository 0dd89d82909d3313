"""The page's frame: `streamlit run app/main.py`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.gate import guard
from app.text import say

# A picture of our own: Streamlit fetches ":material/...:" page icons from the internet.
st.set_page_config(page_title=say("app.tab"), page_icon=Path(__file__).with_name("icon.png"), layout="centered")
st.html(Path(__file__).with_name("page.css"))
guard()
st.navigation([st.Page("pages/segment.py", title=say("app.tab"))], position="hidden").run()
