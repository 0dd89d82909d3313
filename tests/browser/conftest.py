"""The real server, started as `make run` does, and a real browser that reports what it should not do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.text import say

ROOT = Path(__file__).parents[2]
TIMEOUT_MS = 60_000
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Server:
    """A running page and the folder in which it keeps its private folders."""

    url: str
    work: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    work, port = tmp_path_factory.mktemp("work"), free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app/server.py", "--server.port", str(port)]
    own = {"VLRETRIEVAL_ARCHIVE": str(work / "archive"), "MEDSEG_MODELS": str(work / "models")}
    environment = {**os.environ, "TMPDIR": str(work), **own}
    log = (work / "server.log").open("wb")
    with log, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as process:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", process)
            yield Server(f"http://127.0.0.1:{port}", work)
        finally:
            process.terminate()
            process.wait(20)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], timeout_s: float = 90) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the page did not start (exit code {process.poll()})")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium: `apt-get install chromium`")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def visiting(browser: Browser, server: Server, **how: Any) -> Iterator[Page]:
    """A visitor of their own on the first page; at the end, nothing went wrong and nobody else was asked."""
    screen = {"viewport": {"width": 1280, "height": 1400}, "accept_downloads": True}
    context = browser.new_context(**{**screen, **how})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)
    errors: list[str] = []
    abroad: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: abroad.append(request.url) if is_abroad(request.url) else None)
    page.goto(server.url)
    page.get_by_role("heading", name=say("intake.title")).wait_for()
    yield page
    context.close()
    assert errors == []
    assert abroad == []


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with visiting(browser, server) as page:
        yield page


def is_abroad(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1"
