"""ASGI middleware around the page: strangers' host names are turned away, and every answer carries strict headers.

A page on loopback can still be reached by a foreign name that was made to point here (DNS rebinding); the browser then
sends that name as Host. `Middleware(Fences)` belongs before everything else in `app.server`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import LOOPBACK

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def allowed_hosts(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Names under which the page may be reached: loopback, and what `MEDSEG_ALLOWED_HOSTS` lists; `*` is any."""
    own = {part.strip().lower() for part in environment.get("MEDSEG_ALLOWED_HOSTS", "").split(",") if part.strip()}
    return LOOPBACK | own


class Fences:
    """Checks Host, adds headers."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None = None) -> None:
        self.app, self.hosts = app, allowed_hosts() if hosts is None else hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what was asked under one of our names."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if not self._is_ours(Headers(scope=scope).get("host", "")):
            await self._turn_away(scope, receive, send)
            return

        async def leave(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, leave)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return "*" in self.hosts or name in self.hosts

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse("Not served under this name.", status_code=421)(scope, receive, send)
