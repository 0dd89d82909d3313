"""Who is asking: a browser is told apart by a cookie that no script can read and no other site can send along.

The cookie is no sign-in. It keeps the studies of one browser out of every other one, on the page and on the
routes that hand out volumes and files (`app.routes`), whatever addresses get around.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "medseg_visitor"
KEPT_S = 8 * 3600
_ID = re.compile(r"[A-Za-z0-9_-]{32}")


def visitor_in(cookies: Mapping[str, str]) -> str:
    """The visitor's id; empty where the browser brings none of ours."""
    value = cookies.get(COOKIE, "")
    return value if _ID.fullmatch(value) else ""


def cookie_of(visitor: str, scheme: str) -> str:
    """The header that gives a browser its cookie, or lets it keep the one it has for `KEPT_S` seconds more."""
    cookie = f"{COOKIE}={visitor}; Path=/; Max-Age={KEPT_S}; HttpOnly; SameSite=Lax"
    return cookie + ("; Secure" if scheme == "https" else "")


class Visitors:
    """Gives every browser its cookie with the first page; every page and all that a viewer asks for renews it.

    A study lives for some hours after somebody has looked at it, in a tab that was loaded once: `app.routes` renews
    the cookie with every answer about a study of the visitor's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; pages leave with the cookie."""
        if scope["type"] != "http" or scope["method"] != "GET" or not _asks_for_page(scope):
            await self.app(scope, receive, send)
            return
        visitor = visitor_in(HTTPConnection(scope).cookies) or secrets.token_urlsafe(24)
        cookie = cookie_of(visitor, scope["scheme"])

        async def leave(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        await self.app(scope, receive, leave)


def _asks_for_page(scope: Scope) -> bool:
    """A navigation, not a picture or a file: also one that is answered "not modified"."""
    return "text/html" in HTTPConnection(scope).headers.get("accept", "")
