"""Nobody in by default: loopback, or a sign-in with a list of people."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.access import SESSION_HOURS, Door
from app.fences import HEADERS, Fences, allowed_hosts
from tests.packaging.checkout import ROOT

NOW = 1_800_000_000.0
ME = {"is_logged_in": True, "email": "Me@Clinic.org", "iat": NOW - 60}


@pytest.mark.parametrize(
    ("address", "secrets", "environment", "may"),
    [
        ("127.0.0.1", {}, {}, True),
        ("localhost", {}, {}, True),
        ("::1", {}, {}, True),
        (None, {}, {}, False),
        ("0.0.0.0", {}, {}, False),
        ("192.168.0.7", {}, {}, False),
        ("0.0.0.0", {"auth": {}}, {}, True),
        ("0.0.0.0", {}, {"MEDSEG_TRUST_PROXY": "1"}, True),
        ("0.0.0.0", {}, {"MEDSEG_TRUST_PROXY": "0"}, False),
    ],
)
def test_where_the_page_may_be_served(address: str | None, secrets: Any, environment: Any, may: bool) -> None:
    assert (Door.of(address, secrets, environment).problem == "") is may


@pytest.mark.parametrize(
    ("user", "verdict"),
    [
        ({}, "sign in"),
        ({"is_logged_in": False, "email": "me@clinic.org"}, "sign in"),
        (ME, "yes"),
        (ME | {"email": "you@partner.org"}, "yes"),
        (ME | {"email": "you@clinic.org"}, "no"),
        (ME | {"email": "me@clinic.org.evil.net"}, "no"),
        (ME | {"email": "partner.org"}, "no"),
        (ME | {"email_verified": False}, "no"),
        (ME | {"email": ""}, "no"),
        (ME | {"iat": NOW - SESSION_HOURS * 3600 - 1}, "expired"),
        ({"is_logged_in": True, "email": "me@clinic.org"}, "expired"),
    ],
)
def test_who_may_come_in(user: dict[str, Any], verdict: str) -> None:
    door = Door.of("0.0.0.0", {"auth": {}}, {"MEDSEG_USERS": "me@clinic.org, @partner.org"})
    assert door.admits(user, NOW) == verdict


def test_a_sign_in_without_a_list_admits_nobody() -> None:
    assert Door.of("0.0.0.0", {"auth": {}}, {}).admits(ME, NOW) == "no"


def test_without_a_sign_in_loopback_is_open() -> None:
    assert Door("127.0.0.1").admits({}) == "yes"


def _gate() -> None:
    import streamlit as st

    from app.gate import guard

    guard()
    st.write("PATIENT DATA")


def test_an_open_server_shows_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    import streamlit as st

    monkeypatch.setattr(st, "get_option", lambda name: "0.0.0.0" if name == "server.address" else None)
    monkeypatch.delenv("MEDSEG_TRUST_PROXY", raising=False)
    page = AppTest.from_function(_gate).run()
    assert "ask nobody's name" in page.error[0].value
    assert not page.markdown


def test_loopback_shows_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    import streamlit as st

    monkeypatch.setattr(st, "get_option", lambda name: "127.0.0.1" if name == "server.address" else None)
    assert AppTest.from_function(_gate).run().markdown[0].value == "PATIENT DATA"


def _ask(host: str, kind: str = "http") -> list[dict[str, Any]]:
    """What the fences answer to one request under a name."""
    sent: list[dict[str, Any]] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    fences = Fences(inside, allowed_hosts({"MEDSEG_ALLOWED_HOSTS": "ct.clinic.org"}))
    scope = {"type": kind, "method": "GET", "path": "/", "headers": [(b"host", host.encode())]}
    asyncio.run(fences(scope, receive, send))  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1", "[::1]:8501", "ct.clinic.org", "LOCALHOST"])
def test_our_names_are_served_with_strict_headers(host: str) -> None:
    answer = _ask(host)[0]
    assert answer["status"] == 200
    assert {(name.lower().encode(), value.encode()) for name, value in HEADERS.items()} <= set(answer["headers"])


STRANGERS = ["evil.net", "localhost.evil.net", "", "ct.clinic.org.evil.net", "[::1", "127.0.0.1@evil.net"]


@pytest.mark.parametrize("host", STRANGERS)
def test_other_names_are_turned_away(host: str) -> None:
    assert _ask(host)[0]["status"] == 421
    assert _ask(host, "websocket") == [{"type": "websocket.close", "code": 1008}]


def test_the_settings_of_the_server() -> None:
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    server = settings["server"]
    assert (server["address"], server["enableXsrfProtection"], server["enableCORS"]) == ("127.0.0.1", True, True)
    assert server["enableStaticServing"] is False
    assert settings["client"]["showErrorDetails"] == "none"
    assert settings["browser"]["gatherUsageStats"] is False


def test_containers_vouch_for_their_loopback() -> None:
    compose = Path(ROOT / "containers/compose.yaml").read_text()
    assert '"127.0.0.1:${PORT:-8501}:8501"' in compose
    for name in ("cpu", "gpu"):
        assert "MEDSEG_TRUST_PROXY=1" in (ROOT / f"containers/Dockerfile.{name}").read_text()
