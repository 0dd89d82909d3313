"""One study after the other: handed in, segmented, read and deleted; by protocol or in a browser.

What this knows of the page are the keys of its widgets and three of its sentences; both are named here.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.text import sentences
from benchmarks.soaking.planted import Planted, Planter
from benchmarks.soaking.visitor import Visitor

MODEL_TITLE = "Hounsfield"
MEASURED = re.compile(r"The whole body in the scan measures ([\d.]+) ml")
NAMES = re.compile(r"planted-\d+")
WAITING = tuple(words for key, words in sentences("en").items() if key.startswith("run.waiting") and "{" not in words)
WAITING_MANY = sentences("en")["run.waiting.many"].split("{count}")[1]
PATIENCE_S = 300.0
_POLL_S = 0.4


@dataclass
class Visit:
    """What one visitor saw of one study; times in seconds since it was handed in, None where it never came.

    Attributes:
        fate: 'right', 'crossed' (another's body, name or study was seen), 'lost' (no result), 'busy' (the server
            refused to take it, in words), 'failed' (the page said so) or the name of an exception.
    """

    visitor: str
    scan: str
    side: int
    handed_in: float
    read_s: float | None = None
    asked_s: float | None = None
    began_s: float | None = None
    done_s: float | None = None
    fate: str = "lost"
    words: str = ""


@dataclass
class Guests:
    """Everybody who is there, and what they have seen. Appended to from their threads."""

    base: str
    end: float
    planter: Planter = field(default_factory=Planter)
    visits: list[Visit] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    studies: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_open(self) -> bool:
        return time.monotonic() < self.end

    @property
    def has_patience(self) -> bool:
        return time.monotonic() < self.end + PATIENCE_S

    def another(self, than: str) -> str:
        """A study of somebody else's, where there is one."""
        with self.lock:
            return next((study for name, study in self.studies.items() if name != than), "")

    def say(self, visit: Visit, fate: str, words: str = "") -> None:
        visit.fate, visit.words = fate, words[:300]


@contextmanager
def _kept(guests: Guests, who: str, planted: Planted) -> Iterator[Visit]:
    """A visit that is written down, however it ends."""
    visit = Visit(who, planted.name, planted.side, time.monotonic())
    try:
        yield visit
    except Exception as error:  # whatever stops a visitor is a result of the soak
        guests.say(visit, type(error).__name__, str(error))
    finally:
        with guests.lock:
            guests.visits.append(visit)
            guests.waiting.discard(planted.name)
            guests.studies.pop(planted.name, None)


def visit_by_protocol(guests: Guests, who: str) -> None:
    """Study after study until the end."""
    while guests.is_open:
        planted = guests.planter.next()
        with _kept(guests, who, planted) as visit:
            visitor = Visitor(guests.base)
            try:
                _by_protocol(guests, visitor, planted, visit)
            finally:
                visitor.close()
        if visit.fate not in ("right", "crossed"):
            time.sleep(1)


def _by_protocol(guests: Guests, visitor: Visitor, planted: Planted, visit: Visit) -> None:
    visitor.rerun()
    visit.handed_in = time.monotonic()
    uploader = visitor.widget("file_uploader", "files-0")
    uploaded = visitor.upload(planted.file, planted.content)
    visitor.rerun((uploader, "file_uploader_state_value", uploaded))
    if not visitor.study:
        guests.say(visit, "busy", _alerts(visitor.shown))
        return
    with guests.lock:
        guests.studies[planted.name] = visitor.study
    if not _ask(guests, visitor, visit):
        return
    _await(guests, visitor, planted, visit)
    _check_fences(guests, visitor, planted, visit)
    if (button := visitor.widget("button", "delete")) is not None:
        visitor.rerun((button, "trigger_value", True))


def _ask(guests: Guests, visitor: Visitor, visit: Visit) -> bool:
    """Once the scan has been read: choose the model and press the button."""
    while guests.has_patience:
        choice, button = visitor.widget("selectbox", "model-first"), visitor.widget("button", "run-first")
        if choice is not None and button is not None:
            visit.read_s = time.monotonic() - visit.handed_in
            wanted = next(option for option in choice.options if MODEL_TITLE in option)
            visitor.rerun((choice, "string_value", wanted), (button, "trigger_value", True))
            visit.asked_s = time.monotonic() - visit.handed_in
            if "result=" not in visitor.query:
                guests.say(visit, "busy", _alerts(visitor.shown))
            return "result=" in visitor.query
        if visitor.widget("button", "again") is not None:
            guests.say(visit, "failed", _alerts(visitor.shown))
            return False
        time.sleep(_POLL_S)
        visitor.rerun()
    return False


def _await(guests: Guests, visitor: Visitor, planted: Planted, visit: Visit) -> None:
    while guests.has_patience:
        visitor.rerun()
        shown, now = visitor.shown, time.monotonic() - visit.handed_in
        _note_queue(guests, planted, visit, is_waiting_in(shown), now)
        if found := MEASURED.search(shown):
            visit.done_s = now
            judge(guests, planted, visit, found[1], shown)
            return
        if visitor.widget("button", "run-first") is not None:
            guests.say(visit, "failed", _alerts(shown))
            return
        time.sleep(_POLL_S)


def is_waiting_in(shown: str) -> bool:
    """The page says that other studies run first."""
    return WAITING_MANY in shown or any(words in shown for words in WAITING)


def _note_queue(guests: Guests, planted: Planted, visit: Visit, is_waiting: bool, now: float) -> None:
    if is_waiting:
        guests.waiting.add(planted.name)
    else:
        guests.waiting.discard(planted.name)
        visit.began_s = visit.began_s or now


def judge(guests: Guests, planted: Planted, visit: Visit, body_ml: str, shown: str) -> None:
    """Right only with the own body, the own name and nobody else's."""
    names = set(NAMES.findall(shown))
    if body_ml == planted.body_ml and names == {planted.name}:
        guests.say(visit, "right")
    else:
        words = f"{body_ml} ml and {sorted(names)} shown, {planted.body_ml} ml of {planted.name} expected"
        guests.say(visit, "crossed", words)


def _check_fences(guests: Guests, visitor: Visitor, planted: Planted, visit: Visit) -> None:
    """The own study is there; a stranger's, asked for by its true address, is not."""
    if visitor.status_of(visitor.study) != 200:
        guests.say(visit, "lost", "the study is not there for its owner")
    stranger = guests.another(planted.name)
    if stranger and (status := visitor.status_of(stranger)) != 404:
        guests.say(visit, "crossed", f"a stranger's study answered {status}")


def _alerts(shown: str) -> str:
    return " ".join(re.findall(r'body: "([^"]*)"', shown))[:300]


def visit_by_browser(guests: Guests, who: str) -> None:
    """The same in a real browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        program = next(
            path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))
        )
        browser = tool.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        while guests.is_open:
            planted, context = guests.planter.next(), browser.new_context()
            with _kept(guests, who, planted) as visit:
                _by_browser(guests, context.new_page(), planted, visit)
            with suppress(Exception):
                context.close()
        browser.close()


def _by_browser(guests: Guests, page: Any, planted: Planted, visit: Visit) -> None:
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(guests.base)
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / planted.file
        scan.write_bytes(planted.content)
        visit.handed_in = time.monotonic()
        page.locator("input[type=file]").first.set_input_files(scan)
        page.locator(".st-key-model-first input").wait_for()
    visit.read_s = time.monotonic() - visit.handed_in
    _choose_model(page)
    page.locator(".st-key-run-first button").click()
    visit.asked_s = time.monotonic() - visit.handed_in
    remark = page.get_by_text("The whole body in the scan measures").first
    while guests.has_patience and not remark.count():
        shown = page.locator("[data-testid=stMain]").inner_text()
        _note_queue(guests, planted, visit, is_waiting_in(shown), time.monotonic() - visit.handed_in)
        page.wait_for_timeout(_POLL_S * 1000)
    if not remark.count():
        return
    visit.done_s = time.monotonic() - visit.handed_in
    visit.began_s = visit.began_s or visit.done_s
    found = MEASURED.search(remark.text_content())
    judge(guests, planted, visit, found[1] if found else "nothing", page.content())
    page.locator(".st-key-delete button").first.click()
    page.locator("input[type=file]").first.wait_for(state="attached")


def _choose_model(page: Any) -> None:
    """The page may be drawn anew while the menu is open, and close it: then it is opened again."""
    for _ in range(8):
        page.locator(".st-key-model-first input").click()
        with suppress(Exception):
            page.get_by_role("option", name=MODEL_TITLE).click(timeout=10_000)
            return
        page.keyboard.press("Escape")
    raise TimeoutError("the menu of models never let one be chosen")
