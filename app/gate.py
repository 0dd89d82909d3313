"""The gate before every page: `guard()` returns only for visitors who may come in."""

from __future__ import annotations

import os
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from app.access import Door
from app.text import say


def guard() -> None:
    """Stop here unless the page may be served and the visitor may see it."""
    door = Door.of(st.get_option("server.address"), _secrets())
    if door.problem:
        st.error(door.problem)
        st.stop()
    if not door.has_login:
        return
    verdict = door.admits(dict(st.user))
    if verdict == "yes":
        return
    st.title(say("app.tab"))
    if verdict == "no":
        st.error(say("gate.no"))
        st.button(say("gate.out"), on_click=st.logout, key="sign-out")
    else:
        st.info(say(f"gate.{verdict.replace(' ', '_')}"))
        st.button(say("gate.in"), on_click=st.login, type="primary", key="sign-in")
    st.stop()


def _secrets() -> dict[str, Any]:
    try:
        return dict(st.secrets)
    except (FileNotFoundError, StreamlitSecretNotFoundError):
        return {}


def refuse_open_server() -> None:
    """End a server that would listen beyond this computer and ask nobody's name; for the start of the page.

    Raises:
        SystemExit: with the reason.
    """
    door = Door.of(st.get_option("server.address"), _secrets(), os.environ)
    if door.problem:
        raise SystemExit(door.problem)
