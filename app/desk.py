"""The one desk of this server, and who may ask what of it."""

from __future__ import annotations

import atexit

import streamlit as st

from app.services import Desk

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@st.cache_resource(show_spinner=False)
def desk() -> Desk:
    """Made with the first visitor, shared by all, closed with the server."""
    made = Desk()
    atexit.register(made.close)
    return made


def is_local() -> bool:
    """Whether the visitor sits at this computer, and so may name paths on it.

    The server has to be bound to loopback, and the request must not come through a proxy.
    """
    headers = st.context.headers
    host = headers.get("Host", "localhost").rsplit(":", 1)[0].strip("[]")
    forwarded = any(name in headers for name in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"))
    return st.get_option("server.address") in _LOOPBACK and host in _LOOPBACK and not forwarded
