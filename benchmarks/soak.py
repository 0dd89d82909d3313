"""Soak: sixteen visitors who speak the page's protocol and two browsers, each with a phantom of its own.

    python benchmarks/soak.py --minutes 30 --out benchmarks/results/soak.json

Starts the page on a free port, and then every visitor uploads, waits and reads the result, again and again, with scans
of mixed sizes. Each upload's body has a size that no other has: a result with another body's volume is a mix-up.
Reports mix-ups, lost uploads, the 95th percentile of the wait until the result and until the job began, and the
server's memory. What depends on the page's words and widgets stands in `Words` alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import medseg
from medseg.imaging.emit import emit_json
from medseg.imaging.volume import Geometry, Volume
from medseg.runtime.provenance import machine, now, versions
from tests.phantoms import write_nifti

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Words:
    """What this script knows of the page: the keys of its widgets, and how a result looks."""

    app: str = "app/main.py"
    uploader: str = "files"
    model: str = "model"
    model_title: str = "hounsfield"
    run: str = "run"
    measured = re.compile(r"The whole body in the scan measures ([\d.]+) ml")


@dataclass
class Log:
    """What the visitors saw. Appended to from their threads."""

    waits_s: list[float] = field(default_factory=list)
    queue_s: list[float] = field(default_factory=list)
    mixed_up: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    busy: int = 0
    studies: int = 0


def phantom(number: int, rng: random.Random, words: Words) -> tuple[Volume, str]:
    """A ball whose size tells the number, and the millilitres that the model's remark names."""
    n = rng.choice((24, 40, 64, 80))
    spacing = 192 / n
    radius = 50 + 30 * ((number * 0.6180339887) % 1)
    index = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij")) - (n - 1) / 2
    inside = np.sqrt(((index * spacing) ** 2).sum(axis=0)) < radius
    hu = np.where(inside, 40.0, -1000.0).astype(np.float32)
    hu += np.random.default_rng(number).integers(-8, 9, hu.shape).astype(np.float32)
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    volume = Volume(hu, Geometry(hu.shape, affine), name=f"planted-{number}")
    remarks = " ".join(map(str, medseg.segment(volume, model="tissue-hu").findings))
    return volume, words.measured.search(remarks)[1]  # type: ignore[index]


class Visitor:
    """One session of the page's protocol."""

    def __init__(self, base: str, words: Words) -> None:
        self.base, self.words = base, words
        self.http = requests.Session()
        self.http.get(base, timeout=30)
        self.http.get(f"{base}/_stcore/health", timeout=30)  # sets the cookie against forged requests
        token = self.http.cookies.get("_streamlit_xsrf", "")
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies)
        self.closing = contextlib.ExitStack()
        opening = connect(
            base.replace("http", "ws", 1) + "/_stcore/stream",
            subprotocols=["streamlit", token or "PLACEHOLDER_AUTH_TOKEN"],  # type: ignore[list-item]
            additional_headers={"Cookie": cookies, "Origin": base},
            max_size=None,
        )
        self.socket = self.closing.enter_context(opening)
        self.query, self.session, self.states = "", "", {}  # type: ignore[var-annotated]
        self.elements: list[Any] = []

    def close(self) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            self.closing.close()

    def rerun(self, **triggers: Any) -> None:
        """Run the page once and take in what it shows."""
        message = BackMsg()
        message.rerun_script.query_string = self.query
        for widget, (kind, value) in {**self.states, **triggers}.items():
            state = message.rerun_script.widget_states.widgets.add(id=widget)
            if kind == "file_uploader_state_value":
                state.file_uploader_state_value.CopyFrom(value)
            else:
                setattr(state, kind, value)
        self.socket.send(message.SerializeToString())
        self.elements = []
        self._listen()

    def _listen(self) -> None:
        while True:
            told = ForwardMsg()
            told.ParseFromString(self.socket.recv(timeout=120))  # type: ignore[arg-type]
            kind = told.WhichOneof("type")
            if kind == "new_session":
                self.session = told.new_session.initialize.session_id or self.session
            elif kind == "page_info_changed":
                self.query = told.page_info_changed.query_string
            elif kind == "delta" and told.delta.WhichOneof("type") == "new_element":
                self.elements.append(told.delta.new_element)
            elif kind == "script_finished" and told.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                return

    def widget(self, kind: str, key: str) -> Any:
        """The widget with that key of our own."""
        found = [getattr(e, kind) for e in self.elements if e.WhichOneof("type") == kind]
        return next((one for one in found if one.id.endswith(f"-{key}")), None)

    def upload(self, name: str, content: bytes) -> Any:
        """Send a file as a browser does; the state of the uploader that holds it."""
        ask = BackMsg()
        ask.file_urls_request.request_id, ask.file_urls_request.session_id = "1", self.session
        ask.file_urls_request.file_names.append(name)
        self.socket.send(ask.SerializeToString())
        while True:
            told = ForwardMsg()
            told.ParseFromString(self.socket.recv(timeout=60))  # type: ignore[arg-type]
            if told.WhichOneof("type") == "file_urls_response":
                break
        urls = told.file_urls_response.file_urls[0]
        token = self.http.cookies.get("_streamlit_xsrf", "")
        answer = self.http.put(
            self.base + urls.upload_url, files={"file": (name, content)}, headers={"X-Xsrftoken": token}, timeout=120
        )
        answer.raise_for_status()
        from streamlit.proto.Common_pb2 import FileUploaderState, UploadedFileInfo

        info = UploadedFileInfo(name=name, size=len(content), file_id=urls.file_id, file_urls=urls)
        return FileUploaderState(uploaded_file_info=[info])

    def everything(self) -> str:
        """All that is shown, as text."""
        return "\n".join(map(str, self.elements))


def one_study(base: str, words: Words, number: int, rng: random.Random, log: Log, end: float) -> None:
    """Upload, wait, read, delete."""
    volume, expected = phantom(number, rng, words)
    with tempfile.TemporaryDirectory() as folder:
        content = write_nifti(Path(folder) / f"{volume.name}.nii.gz", volume).read_bytes()
    visitor = Visitor(base, words)
    try:
        visitor.rerun()
        began = time.monotonic()
        uploader, radio = visitor.widget("file_uploader", words.uploader), visitor.widget("radio", words.model)
        wanted = next(option for option in radio.options if words.model_title in option.lower())
        visitor.states[uploader.id] = ("file_uploader_state_value", visitor.upload(f"{volume.name}.nii.gz", content))
        visitor.states[radio.id] = ("string_value", wanted)
        visitor.rerun()
        run = visitor.widget("button", words.run)
        visitor.rerun(**{run.id: ("trigger_value", True)})
        visitor.states = {}
        _await(visitor, words, volume.name, expected, began, log, end)
    finally:
        visitor.close()


def _await(visitor: Visitor, words: Words, name: str, expected: str, began: float, log: Log, end: float) -> None:
    if "study=" not in visitor.query:
        log.busy += 1
        return
    log.studies += 1
    started = 0.0
    while time.monotonic() < end + 300:
        visitor.rerun()
        shown = visitor.everything()
        started = started or (time.monotonic() if "waiting" not in shown.lower() else 0.0)
        if found := words.measured.search(shown):
            log.waits_s.append(time.monotonic() - began)
            log.queue_s.append((started or time.monotonic()) - began)
            if found[1] != expected or name not in shown:
                log.mixed_up.append(f"{name}: {found[1]} ml shown, {expected} expected")
            return
        time.sleep(0.5)
    log.lost.append(name)


@contextlib.contextmanager
def page(words: Words, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The page on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        words.app,
        "--server.port",
        str(port),
        "--server.headless",
        "true",
    ]
    environment = os.environ | {"TMPDIR": str(folder), "MEDSEG_MAX_STARTS_PER_MINUTE": "1000"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{base}/_stcore/health", timeout=5).ok:
                    break
            time.sleep(0.5)
        yield base, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _browse(base: str, words: Words, numbers: Iterator[int], log: Log, end: float) -> None:
    """A real browser, as the two that the issue asks for."""
    from playwright.sync_api import TimeoutError as Waited
    from playwright.sync_api import sync_playwright

    rng = random.Random(99)
    with sync_playwright() as tool, tempfile.TemporaryDirectory() as folder:
        browser = tool.chromium.launch(executable_path=_chromium())
        while time.monotonic() < end:
            volume, expected = phantom(next(numbers), rng, words)
            scan = write_nifti(Path(folder) / f"{volume.name}.nii.gz", volume)
            began, tab = time.monotonic(), browser.new_page()
            tab.goto(base)
            tab.locator("input[type=file]").first.set_input_files(scan)
            tab.get_by_text("Hounsfield", exact=False).first.click()
            tab.get_by_role("button", name="Segment", exact=False).first.click()
            log.studies += 1
            try:
                remark = tab.get_by_text("The whole body in the scan measures").first
                remark.wait_for(timeout=(end + 300 - time.monotonic()) * 1000)
            except Waited:
                log.lost.append(volume.name)
                continue
            log.waits_s.append(time.monotonic() - began)
            shown = words.measured.search(remark.inner_text())
            if shown is None or shown[1] != expected or volume.name not in tab.content():
                log.mixed_up.append(f"browser {volume.name}: {shown and shown[1]} ml shown, {expected} expected")
            tab.close()
        browser.close()


def _chromium() -> str:
    import shutil

    return next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Let everybody work, and count."""
    words, log, lock = Words(app=asked.app), Log(), threading.Lock()
    count = iter(range(1, 10**9))

    def numbers() -> Iterator[int]:
        while True:
            with lock:
                yield next(count)

    troubles: list[str] = []
    with tempfile.TemporaryDirectory() as folder, page(words, Path(folder)) as (base, server):
        end = time.monotonic() + 60 * asked.minutes

        def visit(n: int) -> None:
            rng, own = random.Random(n), numbers()
            while time.monotonic() < end:
                try:
                    one_study(base, words, next(own), rng, log, end)
                except Exception as error:
                    troubles.append(f"{type(error).__name__}: {error}"[:200])
                    time.sleep(1)

        threads = [threading.Thread(target=visit, args=(n,)) for n in range(asked.clients)]
        threads += [
            threading.Thread(target=_browse, args=(base, words, numbers(), log, end)) for _ in range(asked.browsers)
        ]
        for thread in threads:
            thread.start()
        memory = _watch(server, threads)
        for thread in threads:
            thread.join()
    return _report(asked, log, memory, troubles)


def _watch(server: psutil.Process, threads: list[threading.Thread]) -> list[float]:
    """Megabytes of the server's own process, every two seconds, without its workers."""
    found = []
    while any(thread.is_alive() for thread in threads):
        with contextlib.suppress(psutil.Error):
            found.append(server.memory_info().rss / 2**20)
        time.sleep(2)
    return found


def _report(asked: argparse.Namespace, log: Log, memory: list[float], troubles: list[str]) -> dict[str, Any]:
    fifth = max(1, len(memory) // 5)
    return {
        "command": f"python benchmarks/soak.py --minutes {asked.minutes:g}",
        "date": now(),
        "minutes": asked.minutes,
        "clients": asked.clients,
        "browsers": asked.browsers,
        "studies": log.studies,
        "finished": len(log.waits_s),
        "mixed_up": len(log.mixed_up),
        "mixed_up_cases": log.mixed_up[:20],
        "lost": len(log.lost),
        "busy": log.busy,
        "p50_s": _percentile(log.waits_s, 50),
        "p95_s": _percentile(log.waits_s, 95),
        "p95_queue_s": _percentile(log.queue_s, 95),
        "memory_mb_start": round(statistics.median(memory[:fifth] or [0])),
        "memory_mb_end": round(statistics.median(memory[-fifth:] or [0])),
        "memory_mb_most": round(max(memory or [0])),
        "troubles": len(troubles),
        "trouble_texts": sorted(set(troubles))[:10],
        "versions": versions(),
        "machine": machine(),
    }


def _percentile(values: list[float], share: int) -> float:
    return round(float(np.percentile(values, share)), 1) if values else 0.0


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--browsers", type=int, default=2)
    parser.add_argument("--app", default=Words.app)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    report = run(asked)
    if asked.out:
        emit_json(asked.out, report)
    print(json.dumps({key: value for key, value in report.items() if key not in ("versions", "machine")}, indent=1))
    return 1 if report["mixed_up"] or report["lost"] or not report["finished"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
