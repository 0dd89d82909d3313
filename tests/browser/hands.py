"""What a visitor does on the page, and what is to be seen of the viewer: pixels, tiles, words under the cursor."""

from __future__ import annotations

import io
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Error, Locator, Page, expect

from app.text import name_of, say
from medseg.imaging.volume import Array, Volume, reorient

JOB_MS = 180_000
VIEW_MS = 90_000
TRIES, TRY_MS = 8, 10_000
TISSUE = "Tissues by Hounsfield units"


@dataclass(frozen=True)
class Box:
    """A tile of the viewer, in pixels of the page."""

    left: float
    top: float
    width: float
    height: float

    def at(self, across: float, down: float) -> tuple[float, float]:
        """The middle of a pixel, by shares of the tile."""
        return round(self.left + self.width * across) + 0.5, round(self.top + self.height * down) + 0.5


class View:
    """The viewer on the page."""

    def __init__(self, page: Page, state: str = "full") -> None:
        self.page, self.root = page, page.locator(".viewer")
        expect(self.root).to_have_attribute("data-ready", state, timeout=VIEW_MS)

    def button(self, name: str) -> Any:
        return self.root.get_by_role("button", name=name, exact=True)

    def tile(self, plane: str) -> Box:
        self.root.locator("canvas").first.scroll_into_view_if_needed()
        drawn = self.root.locator(f'rect.tile[data-plane="{plane}"]').first
        found = drawn.bounding_box()
        while found is None:  # drawn anew at this moment; waits for it, or fails
            drawn.wait_for()
            found = drawn.bounding_box()
        return Box(found["x"], found["y"], found["width"], found["height"])

    def hover(self, place: tuple[float, float]) -> dict[str, Any]:
        """What the page says of the place under the cursor, once the server has answered; it shows what it holds."""
        self.page.mouse.move(place[0] - 1, place[1])
        self.page.mouse.move(*place)
        shown = self.root.locator("output.place")
        expect(shown).to_have_attribute("data-state", re.compile("told|outside"))
        facts = dict(shown.evaluate("element => ({ ...element.dataset })"))
        if facts["state"] == "outside":
            expect(shown).to_have_text(say("viewer.outside"))
            return {"inside": False}
        expect(shown.locator(".hu")).to_have_text(f"{facts['hu']} HU".replace("-", "−"))
        voxel = [int(n) for n in facts["voxel"].split(",")]
        return {"inside": True, "voxel": voxel, "hu": int(facts["hu"]), "organ": facts["organ"]}

    def settle(self) -> None:
        """Until frames that were asked for are drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def pixels(self, plane: str) -> Array:
        """The picture of a tile, [down, across, RGB], without what is written over it."""
        box = self.tile(plane)
        self.settle()
        self._written("hidden")
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        self._written("")
        rows = slice(round(box.top), round(box.top + box.height))
        return np.asarray(image).astype(int)[rows, round(box.left) : round(box.left + box.width)]

    def _written(self, how: str) -> None:
        change = "(all, how) => all.forEach(one => { one.style.visibility = how })"
        self.root.locator("svg.overlay, .sliders, .solid-tools").evaluate_all(change, how)

    def voxel(self) -> list[int]:
        """Where the crosshair stands, once that is drawn."""
        self.settle()
        return [int(n) for n in (self.root.get_attribute("data-voxel") or "").split(",")]


def colour_share(pixels: Array) -> float:
    """How much of a picture is not grey."""
    return float(((pixels.max(axis=-1) - pixels.min(axis=-1)) > 20).mean())


def canonical(volume: Volume, array: Array) -> Array:
    """An array of a volume as the viewer counts it: right, front, head."""
    return reorient(array, volume.geometry.to_canonical)


def upload(page: Page, files: list[Path]) -> None:
    """Hand files in; the scan is taken in at once."""
    page.locator('input[type="file"]').set_input_files([str(path) for path in files])


def open_scan(page: Page, files: list[Path]) -> View:
    upload(page, files)
    return View(page)


def choose(page: Page, menu: Locator, title: str) -> None:
    """Take an option; open the menu again where a page that was just drawn anew has closed it."""
    for _ in range(TRIES):
        menu.click()
        with suppress(Error):
            page.get_by_role("option", name=title).click(timeout=TRY_MS)
            return
        page.keyboard.press("Escape")
    raise AssertionError(f"The menu never let {title} be chosen.")


def segment(page: Page, title: str = TISSUE, key: str = "first") -> None:
    """Choose a model, press the button, wait for the table."""
    choose(page, page.locator(f".st-key-model-{key} input"), title)
    number = page.locator(".viewer").get_attribute("data-run") or "0"
    page.locator(f".st-key-run-{key} button").click()
    shown = str(int(number) + 1)
    expect(page.locator(".viewer")).to_have_attribute("data-run", shown, timeout=JOB_MS)
    page.locator("#organ-table").wait_for(timeout=JOB_MS)


def shown_rows(page: Page) -> dict[str, list[str]]:
    """Every row of the organ table: organ -> its cells."""
    rows = page.locator("#organ-table tbody tr")
    names = rows.evaluate_all("rows => rows.map(row => row.dataset.organ)")
    cells = rows.evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))")
    return dict(zip(names, cells, strict=True))


def save(page: Page, name: str, folder: Path) -> Path:
    """Download a file of the result by its button."""
    with page.expect_download(timeout=JOB_MS) as waiting:
        page.locator(f'.downloads [data-file="{name}"]').click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def organ_title(name: str) -> str:
    return name_of("organ", name)


def gone(page: Page) -> None:
    page.get_by_text(say("end.gone")).wait_for()
