"""The one desk of this server, the visitor who is being served, and what a visitor may ask."""

from __future__ import annotations

import atexit
import secrets
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

import streamlit as st

from app.archives import Archives
from app.batches import Batches
from app.services import Desk
from app.visitors import visitor_in

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via")


class _House:
    """What is made once for the server, by whoever needs it first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._desk: Desk | None = None
        self._batches: Batches | None = None
        self._archives: Archives | None = None

    def desk(self) -> Desk:
        with self._lock:
            if self._desk is None:
                self._desk = Desk()
                atexit.register(self._desk.close)
            return self._desk

    def batches(self) -> Batches:
        with self._lock:
            if self._batches is None:
                self._batches = Batches()
                atexit.register(self._batches.close)
            return self._batches

    def archives(self) -> Archives:
        desk = self.desk()
        with self._lock:
            if self._archives is None:
                self._archives = Archives(desk)
                atexit.register(self._archives.close)
            return self._archives

    def close(self) -> None:
        with self._lock:
            parts = self._archives, self._batches, self._desk
            self._archives = self._batches = self._desk = None
        for part in parts:
            if part is not None:
                part.close()


_HOUSE = _House()


def desk() -> Desk:
    """Made with the first visitor, shared by all, closed with the server."""
    return _HOUSE.desk()


def batches() -> Batches:
    """The batches of this server."""
    return _HOUSE.batches()


def archives() -> Archives:
    """What is asked of archives on this server."""
    return _HOUSE.archives()


def close() -> None:
    """Stop everything and delete everything; the next question makes it anew."""
    _HOUSE.close()


def visitor() -> str:
    """Who is being served: the browser's cookie, or the session itself where there is none."""
    own: str = st.session_state.setdefault("visitor", secrets.token_urlsafe(24))
    return visitor_in(st.context.cookies) or own


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
