"""The one desk of this server, and who may ask what of it."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from urllib.parse import urlsplit

import streamlit as st

from app.services import Desk

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via")


@st.cache_resource(show_spinner=False)
def desk() -> Desk:
    """Made with the first visitor, shared by all, closed with the server."""
    made = Desk()
    atexit.register(made.close)
    return made


def is_local() -> bool:
    """Whether the visitor sits at this computer, and so may name paths on it."""
    return may_name_paths(st.get_option("server.address"), st.context.headers)


def may_name_paths(address: str | None, headers: Mapping[str, str]) -> bool:
    """Only where the server is bound to loopback and the request came there directly.

    Args:
        address: what the server is bound to; None is every interface.
        headers: of the visitor's request. A proxy on this computer, or a foreign name that was made
            to point here, shows itself in them.
    """
    host = urlsplit(f"//{headers.get('Host', 'localhost')}").hostname
    forwarded = any(name in headers for name in _FORWARDED)
    return address in _LOOPBACK and host in _LOOPBACK and not forwarded
