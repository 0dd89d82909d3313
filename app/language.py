"""Which language a visitor reads: the one chosen, else the browser's."""

from __future__ import annotations

from typing import get_args

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.text import LANGUAGES, ask
from medseg.exports.words import Language

_KEY, _PARAMETER = "language", "lang"


def _read() -> Language:
    if get_script_run_ctx(suppress_warning=True) is None:
        return "en"
    chosen = st.session_state.get(_KEY)
    if chosen in LANGUAGES:
        return "zh" if chosen == "zh" else "en"
    return "en"


def settle_language() -> None:
    """Take the language from the address, else from the browser, before the first word is said."""
    ask(_read)
    asked = st.query_params.get(_PARAMETER)
    if asked in get_args(Language) and st.session_state.get(_KEY) != asked:
        st.session_state[_KEY] = asked
    elif _KEY not in st.session_state:
        st.session_state[_KEY] = "zh" if (st.context.locale or "").lower().startswith("zh") else "en"


def choose_language() -> None:
    """A switch between the languages, kept in the address."""

    def change() -> None:
        chosen = st.session_state["language-switch"]
        if chosen in LANGUAGES:
            st.session_state[_KEY] = st.query_params[_PARAMETER] = chosen

    st.session_state["language-switch"] = _read()
    st.segmented_control(
        "Language / 语言",
        list(LANGUAGES),
        format_func=LANGUAGES.__getitem__,
        required=True,
        key="language-switch",
        on_change=change,
        label_visibility="collapsed",
    )
