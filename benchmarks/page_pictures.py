"""Pictures of every state of the page, for the documents: the example and computed scans, nobody's CT.

PYTHONPATH=. python benchmarks/page_pictures.py --out docs/page

Each is taken of a real page in a real browser, and reduced to a palette so that it stays small.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
from PIL import Image
from playwright.sync_api import Browser, Page

from app.text import say, sentences
from benchmarks.page import browsing, opened, serving
from medseg.examples import example_path
from tests.browser.hands import JOB_MS, View
from tests.phantoms import phantom_volume, write_nifti

COLOURS = 256
TABLET = {"viewport": {"width": 820, "height": 1180}, "has_touch": True}
SLOW_BYTES_S = 300_000
INDEX_MS = 600_000


class Album:
    """Where pictures go."""

    def __init__(self, browser: Browser, url: str, folder: Path, place: Path) -> None:
        self.browser, self.url, self.folder, self.place = browser, url, folder, place
        folder.mkdir(parents=True, exist_ok=True)

    def visit(self, path: str = "", **how: Any) -> Page:
        tab = opened(self.browser, **how)
        tab.goto(f"{self.url}/{path}")
        return tab

    def keep(self, tab: Page, name: str, *, whole: bool = False) -> None:
        tab.wait_for_timeout(900)  # Streamlit fades what it replaces
        image = Image.open(io.BytesIO(tab.screenshot(full_page=whole))).convert("RGB")
        # By the range of colours, not by their number of pixels: an organ's small square keeps its own.
        small = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(self.folder / f"{name}.png", optimize=True)


def first_page(album: Album) -> None:
    """Empty, while a scan is uploaded, and what is said of a damaged file."""
    tab = album.visit()
    tab.get_by_role("heading", name=say("intake.title")).wait_for()
    album.keep(tab, "empty")
    tab.context.new_cdp_session(tab).send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": SLOW_BYTES_S},
    )
    tab.locator("input[type=file]").set_input_files(example_path())
    tab.get_by_text(example_path().name).first.wait_for()
    album.keep(tab, "uploading")
    good = write_nifti(album.place / "phantom.nii.gz", phantom_volume())
    bad = album.place / "broken.nii.gz"
    bad.write_bytes(good.read_bytes()[:3000])
    tab = album.visit()
    tab.locator("input[type=file]").set_input_files(bad)
    tab.get_by_role("alert").wait_for()
    album.keep(tab, "error")


def example(album: Album, language: str = "en", **how: Any) -> tuple[Page, View]:
    """The example, seen and not yet segmented."""
    tab = album.visit(f"?lang={language}", **how)
    tab.locator(".st-key-example button").click()
    return tab, View(tab)


def segmented(tab: Page) -> None:
    """Press the button and wait for the table and the picture."""
    tab.locator(".st-key-run-first button").click()
    tab.locator("#organ-table").wait_for(timeout=JOB_MS)
    tab.locator(".viewer[data-run='1']").wait_for(timeout=JOB_MS)
    tab.wait_for_timeout(2500)


def results(album: Album) -> None:
    """The scan, the run, its result, the 3-D picture, the tools to correct."""
    tab, view = example(album)
    album.keep(tab, "scan")
    tab.locator(".st-key-run-first button").click()
    tab.get_by_role("button", name=say("run.cancel")).wait_for()
    tab.wait_for_timeout(2000)
    album.keep(tab, "running")
    tab.locator("#organ-table").wait_for(timeout=JOB_MS)
    tab.locator(".viewer[data-run='1']").wait_for(timeout=JOB_MS)
    tab.wait_for_timeout(2500)
    album.keep(tab, "result")
    tab.set_viewport_size({"width": 1440, "height": 2400})
    album.keep(tab, "result-whole")
    tab.set_viewport_size({"width": 1440, "height": 900})
    view.button(say("viewer.edit")).click()
    album.keep(tab, "correct")
    view.button(say("viewer.edit")).click()
    view.root.get_by_label(say("viewer.layout")).select_option("four")
    tab.wait_for_timeout(8000)
    album.keep(tab, "solid")
    view.root.focus()
    tab.keyboard.press("h")
    album.keep(tab, "help")


def looks(album: Album) -> None:
    """The result in Chinese, in the dark, on a tablet."""
    for name, language, how in (
        ("chinese", "zh", {}),
        ("dark", "en", {"color_scheme": "dark"}),
        ("tablet", "en", TABLET),
    ):
        tab, _ = example(album, language, **how)
        segmented(tab)
        album.keep(tab, name)


def other_pages(album: Album) -> None:
    """Models and batches."""
    for name in ("models", "jobs"):
        tab = album.visit(name)
        tab.get_by_role("heading", name=say(f"{name}.title"), exact=True).wait_for()
        tab.locator("input").first.wait_for()
        album.keep(tab, name)


def search(album: Album) -> None:
    """No archive, an archive while it is made, hits, and hits in Chinese on a tablet."""
    tab = album.visit("search")
    tab.get_by_text(say("archive.none")).wait_for()
    album.keep(tab, "search-empty")
    parts_of_example(album.place / "studies")
    tab.locator(".st-key-index-source input").fill("~/studies")
    tab.locator(".st-key-index-start button").click()
    tab.get_by_text(say("archive.indexing", place="1 /")).first.wait_for(timeout=INDEX_MS)
    album.keep(tab, "search-indexing")
    tab.locator(".st-key-search-go").wait_for(timeout=INDEX_MS)
    ask(tab, "enlarged right parotid, slice thickness <= 3 mm", say("search.found", count=""))
    album.keep(tab, "search")
    tab = album.visit("search?lang=zh", **TABLET)
    tab.locator(".st-key-search-go").wait_for()
    ask(tab, "下颌骨 > 20 ml", sentences("zh")["search.found"].split("{")[0])
    album.keep(tab, "search-chinese")


def ask(tab: Page, words: str, answer: str) -> None:
    """Ask the archive and wait for the answer."""
    tab.locator(".st-key-search-words input").fill(words)
    tab.locator(".st-key-search-go button").click()
    tab.get_by_text(answer).first.wait_for(timeout=JOB_MS)
    tab.wait_for_timeout(2000)


def parts_of_example(folder: Path) -> None:
    """The example, its upper and its lower part: three studies, and no patient."""
    folder.mkdir()
    whole = nib.load(example_path())
    count = whole.shape[2]
    for name, low, high in (("whole", 0, count), ("skull", count // 2, count), ("neck", 0, count // 2)):
        nib.save(whole.slicer[:, :, low:high], folder / f"example_{name}.nii.gz")


GROUPS: dict[str, Callable[[Album], None]] = {
    "first": first_page,
    "results": results,
    "looks": looks,
    "others": other_pages,
    "search": search,
}


def main() -> int:
    """Parse, visit, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=GROUPS, nargs="*", default=list(GROUPS))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, serving(Path(place), HOME=place) as served, browsing() as browser:
        album = Album(browser, served.url, asked.out, Path(place))
        for name in asked.only:
            GROUPS[name](album)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
