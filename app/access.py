"""Who may see the page: this computer alone, or people who have signed in. Deny by default.

The server refuses to start on another address than loopback unless one of these holds:

- Streamlit's OpenID Connect is configured (`[auth]` in secrets.toml): every page then asks for a sign-in, and
  `MEDSEG_USERS` names who may come in (addresses or `@domain`, separated by commas; without it nobody may);
- `MEDSEG_TRUST_PROXY=1` says that a proxy with a sign-in of its own stands before the page (containers use this:
  their port is published on loopback).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SESSION_HOURS = 8.0


@dataclass(frozen=True)
class Door:
    """How the page may be entered.

    Attributes:
        address: what the server is bound to; None is every interface.
        has_login: OpenID Connect is configured.
        proxied: a proxy with a sign-in stands before it.
        users: who may come in after signing in.
    """

    address: str | None
    has_login: bool = False
    proxied: bool = False
    users: tuple[str, ...] = ()

    @classmethod
    def of(cls, address: str | None, secrets: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Door:
        """From the server's settings."""
        users = tuple(part.strip().lower() for part in environment.get("MEDSEG_USERS", "").split(",") if part.strip())
        return cls(address, "auth" in secrets, environment.get("MEDSEG_TRUST_PROXY") == "1", users)

    @property
    def problem(self) -> str:
        """Why the page may not be served like this; '' where it may."""
        if self.address in LOOPBACK or self.has_login or self.proxied:
            return ""
        where = self.address or "every interface"
        return (
            f"The page would listen on {where} and ask nobody's name. Bind it to 127.0.0.1, "
            "configure a sign-in ([auth] in .streamlit/secrets.toml), or put a proxy with a sign-in before it and set "
            "MEDSEG_TRUST_PROXY=1."
        )

    def admits(self, user: Mapping[str, Any], now_s: float | None = None) -> str:
        """Whether a visitor may come in: 'yes', 'sign in', 'expired' or 'no'.

        Args:
            user: what the identity provider says (`st.user`).
            now_s: seconds since 1970.
        """
        if not self.has_login:
            return "yes"
        if not user.get("is_logged_in"):
            return "sign in"
        issued = user.get("iat") or user.get("auth_time")
        if issued is None or (now_s or time.time()) - float(issued) > SESSION_HOURS * 3600:
            return "expired"
        return "yes" if self._is_listed(user) else "no"

    def _is_listed(self, user: Mapping[str, Any]) -> bool:
        address = str(user.get("email", "")).lower()
        verified = user.get("email_verified", True) in (True, "true")
        domain = address[address.rfind("@") :]
        return verified and "@" in address and (address in self.users or domain in self.users)
