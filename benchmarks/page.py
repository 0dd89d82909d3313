"""The page in a real browser: how long a new visitor waits, from `make run` to the organ table.

    PYTHONPATH=. python benchmarks/page.py SCAN --out benchmarks/results/page.json

SCAN is one CT: a file, or a folder of DICOM slices, which are handed in one by one as a browser does. Chromium draws
with SwiftShader: no graphics card. Times are from the visitor's side, in seconds:

- `started`: from `make run` (set up already) until it says where the page is;
- `usable`: from then on, until a new browser shows the first page;
- `upload`: from choosing the files until the server has the last of them;
- `first_picture`, `moving`, `full_resolution`: from the end of the upload until something is seen, until slices can be
  scrolled, until they are drawn from every voxel;
- `slice`, `window`: from a movement to the frame that shows it;
- `table`: from the press of *Segment* to the organ table; `clicks` are those of the whole walk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Request, sync_playwright

from app.text import say
from medseg.imaging import read_volume
from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import machine, now, versions
from tests.browser.conftest import FLAGS, free_port
from tests.browser.hands import JOB_MS

ROOT = Path(__file__).resolve().parents[1]
SCREEN = {"width": 1440, "height": 900}
PATIENCE_MS = 180_000
PICTURE_IS_SEEN = """() => {
  const roots = [document, ...[...document.querySelectorAll("*")].map(one => one.shadowRoot).filter(Boolean)]
  const pictures = roots.flatMap(root => [...root.querySelectorAll("img.first-picture, .viewer img.first")])
  return pictures.some(image => image.complete && image.naturalWidth > 0 && image.checkVisibility())
}"""


@dataclass(frozen=True)
class Served:
    """A page that `make run` serves: its address, how long it took, and when it said so."""

    url: str
    seconds: float
    said: float


@contextmanager
def serving(folder: Path, **more: str) -> Iterator[Served]:
    """`make run` on a free port, with its private folders and its archive in `folder`, and more in its environment."""
    port, began = free_port(), time.monotonic()
    places = {"TMPDIR": str(folder), "VLRETRIEVAL_ARCHIVE": str(folder / "archive")}
    environment = {**os.environ, **places, "PYTHONUNBUFFERED": "1", **more}
    command = ["make", "--silent", "run", f"PORT={port}"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            while b"http://127.0.0.1" not in (line := process.stdout.readline()):
                if not line:
                    raise SystemExit("make run ended before it said where the page is.")
            said = time.monotonic()
            yield Served(f"http://127.0.0.1:{port}", said - began, said)
        finally:
            os.killpg(process.pid, signal.SIGTERM)


@contextmanager
def browsing() -> Iterator[Browser]:
    """The system's Chromium."""
    chromium = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Browser, **how: Any) -> Page:
    """A tab of a visitor of its own."""
    tab = browser.new_context(**{"viewport": SCREEN, **how}).new_page()
    tab.set_default_timeout(PATIENCE_MS)
    return tab


@dataclass
class Walk:
    """A new visitor: what they waited for, and how often they had to click."""

    tab: Page
    clicks: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    uploaded: float = 0.0

    def hand_in(self, scan: Path) -> None:
        """Choose the scan's files; the clock of the pictures starts with the end of the upload."""
        files = sorted(scan.iterdir()) if scan.is_dir() else [scan]
        self.tab.on("requestfinished", self._note)
        began = time.monotonic()
        self.tab.locator("input[type=file]").set_input_files(files)
        self.clicks += 1
        self.tab.wait_for_function(PICTURE_IS_SEEN)
        seen = time.monotonic()
        self.seconds["upload"] = round(self.uploaded - began, 2)
        self.seconds["first_picture"] = round(seen - self.uploaded, 2)

    def _note(self, request: Request) -> None:
        if "/_stcore/upload_file/" in request.url:
            self.uploaded = time.monotonic()

    def timed(self, name: str, began: float, wait: Callable[[], Any]) -> None:
        wait()
        self.seconds[name] = round(time.monotonic() - began, 2)

    def click(self, selector: str) -> None:
        self.tab.locator(selector).click()
        self.clicks += 1


def walk(browser: Browser, served: Served, scan: Path) -> Walk:
    """First page, upload, slices, segmentation, table."""
    on = Walk(opened(browser))
    began = time.monotonic()
    on.tab.goto(served.url)
    on.timed("usable", began, on.tab.get_by_role("heading", name=say("intake.title")).wait_for)
    on.hand_in(scan)
    on.timed("moving", on.uploaded, on.tab.locator(".viewer[data-ready]").wait_for)
    on.timed("full_resolution", on.uploaded, on.tab.locator(".viewer[data-ready=full]").wait_for)
    on.seconds["slice"] = round(per_frame(on.tab, lambda: on.tab.mouse.wheel(0, 60)), 3)
    on.seconds["window"] = round(per_frame(on.tab, lambda: on.tab.keyboard.press(next(_keys))), 3)
    began = time.monotonic()
    on.click(".st-key-run-first button")
    on.timed("table", began, lambda: on.tab.locator("#organ-table").wait_for(timeout=JOB_MS))
    return on


_keys = iter("12345" * 100)


def per_frame(tab: Page, act: Callable[[], None], count: int = 10) -> float:
    """Seconds from a movement to the frame that shows it."""
    viewer = tab.locator(".viewer")
    box = tab.locator('rect.tile[data-plane="axial"]').bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    viewer.focus()
    total = 0.0
    for _ in range(count):
        before = viewer.get_attribute("data-frames")
        began = time.monotonic()
        act()
        while viewer.get_attribute("data-frames") == before and time.monotonic() < began + 30:
            pass
        total += time.monotonic() - began
    return total / count


def main() -> int:
    """Parse, walk, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as served, browsing() as browser:
        done = walk(browser, served, asked.scan)
    volume = read_volume(asked.scan)
    report = {
        "command": "PYTHONPATH=. python benchmarks/page.py SCAN --out benchmarks/results/page.json",
        "date": now(),
        "scan": {"format": volume.format, "shape": list(volume.geometry.shape)},
        "seconds": {"started": round(served.seconds, 2), **done.seconds},
        "clicks": done.clicks,
        "load_before": round(load, 2),
        "versions": versions(),
        "machine": machine(),
    }
    if asked.out:
        emit_json(asked.out, report)
    print(json.dumps({"seconds": report["seconds"], "clicks": done.clicks}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
