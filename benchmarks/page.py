"""The page in a real browser: how long a visitor waits, and pictures of every state.

    PYTHONPATH=. python benchmarks/page.py SCAN --out benchmarks/results/page.json --pictures docs/page

SCAN is one CT file (NIfTI); with --pictures it has to be one that may be shown, such as the example. Chromium draws
with SwiftShader: no graphics card. Times are from the visitor's side: the first picture counts from the moment the file
is handed in, with its upload.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from app.text import say
from benchmarks.soak import Words, page
from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import machine, now, versions
from tests.browser.conftest import FLAGS
from tests.browser.hands import JOB_MS, View
from tests.phantoms import phantom_volume, write_nifti

SCREEN, TABLET = {"width": 1440, "height": 900}, {"width": 820, "height": 1180}
PATIENCE_MS = 120_000


@dataclass
class Walk:
    """One visitor's walk: seconds by name, and where pictures go (nowhere for None)."""

    tab: Page
    folder: Path | None
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, began: float, wait: Callable[[], Any]) -> None:
        wait()
        self.seconds[name] = round(time.monotonic() - began, 2)

    def picture(self, name: str) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.tab.wait_for_timeout(700)  # Streamlit fades what it replaces
            self.tab.screenshot(path=self.folder / f"{name}.png")


def opened(browser: Browser, **how: Any) -> Page:
    """A tab of a visitor of its own."""
    tab = browser.new_context(**{"viewport": SCREEN, **how}).new_page()
    tab.set_default_timeout(PATIENCE_MS)
    return tab


def walk(browser: Browser, base: str, scan: Path, folder: Path | None) -> dict[str, float]:
    """Upload, look, segment, look again."""
    on = Walk(opened(browser), folder)
    began = time.monotonic()
    on.tab.goto(base)
    on.timed("usable", began, on.tab.get_by_role("heading", name=say("intake.title")).wait_for)
    on.picture("empty")
    began = time.monotonic()
    on.tab.locator("input[type=file]").set_input_files(scan)
    on.timed("first_picture", began, lambda: on.tab.locator(".viewer img.first, .viewer[data-ready]").first.wait_for())
    on.timed("moving", began, lambda: on.tab.locator(".viewer[data-ready]").wait_for())
    on.timed("full_resolution", began, lambda: on.tab.locator(".viewer[data-ready=full]").wait_for())
    on.picture("scan")
    on.seconds["slice"] = round(per_frame(on.tab, lambda: on.tab.mouse.wheel(0, 60)), 3)
    on.seconds["window"] = round(per_frame(on.tab, lambda: on.tab.keyboard.press(next(_keys))), 3)
    on.tab.keyboard.press("1")
    began = time.monotonic()
    on.tab.locator(".st-key-run-first button").click()
    on.tab.get_by_role("button", name=say("run.cancel")).wait_for()
    on.picture("running")
    on.timed("table", began, lambda: on.tab.locator("#organ-table").wait_for(timeout=JOB_MS))
    on.tab.wait_for_timeout(2000)
    on.picture("result")
    on.tab.get_by_label(say("viewer.layout")).select_option("four")
    on.tab.wait_for_timeout(8000)
    on.picture("solid")
    return on.seconds


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


def states(browser: Browser, base: str, folder: Path) -> None:
    """The states that one walk does not meet."""
    with tempfile.TemporaryDirectory() as place:
        good = write_nifti(Path(place) / "phantom.nii.gz", phantom_volume())
        bad = Path(place) / "broken.nii.gz"
        bad.write_bytes(good.read_bytes()[:3000])
        on = Walk(opened(browser), folder)
        on.tab.goto(base)
        on.tab.locator("input[type=file]").set_input_files(bad)
        on.tab.get_by_role("alert").wait_for()
        on.picture("error")
    for name in ("models", "jobs"):
        on.tab.goto(f"{base}/{name}")
        on.tab.get_by_role("heading", name=say(f"{name}.title"), exact=True).wait_for()
        on.picture(name)
    for name, language, how in (
        ("chinese", "zh", {}),
        ("dark", "en", {"color_scheme": "dark"}),
        ("tablet", "en", {"viewport": TABLET, "has_touch": True}),
    ):
        example(browser, base, folder, name, language, how)


def example(browser: Browser, base: str, folder: Path, name: str, language: str, how: dict[str, Any]) -> None:
    """The example's result, seen in another way."""
    on = Walk(opened(browser, **how), folder)
    on.tab.goto(f"{base}/?lang={language}")
    on.tab.locator(".st-key-example button").click()
    View(on.tab)
    on.tab.locator(".st-key-run-first button").click()
    on.tab.locator("#organ-table").wait_for(timeout=JOB_MS)
    on.tab.wait_for_timeout(3000)
    on.picture(name)


def main() -> int:
    """Parse, walk, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    chromium = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder, page(Words(), Path(folder)) as (base, _), sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=FLAGS)
        seconds = walk(browser, base, asked.scan, asked.pictures)
        if asked.pictures:
            states(browser, base, asked.pictures)
        browser.close()
    report = {
        "command": "PYTHONPATH=. python benchmarks/page.py SCAN --out benchmarks/results/page.json",
        "date": now(),
        "scan": asked.scan.name,
        "seconds": seconds,
        "versions": versions(),
        "machine": machine(),
    }
    if asked.out:
        emit_json(asked.out, report)
    print(json.dumps(seconds, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
