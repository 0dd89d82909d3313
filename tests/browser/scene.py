"""A segmented scan in the viewer beside numpy's arrays of it, and what a picture of them should look like."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from playwright.sync_api import Page

from app.text import say
from medseg.imaging.volume import Array, Volume
from tests.browser.hands import Box, View, canonical, save

AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}
ACROSS = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
STEPS = [0.2, 0.26, 0.32, 0.38, 0.44, 0.5, 0.56, 0.62, 0.68, 0.74, 0.8]


@dataclass(frozen=True)
class Scene:
    """A segmented scan in the viewer, and what numpy holds of it in the viewer's order."""

    view: View
    hu: Array
    mask: Array
    values: dict[str, int]
    spacing: tuple[float, float, float]
    folder: Path

    @property
    def page(self) -> Page:
        return self.view.page

    def found(self) -> list[str]:
        """Organs that are there, the largest first."""
        sizes = np.bincount(self.mask.ravel(), minlength=256)
        return sorted(
            (name for name, value in self.values.items() if sizes[value]), key=lambda n: -sizes[self.values[n]]
        )


def scene_of(view: View, volume: Volume, folder: Path) -> Scene:
    """The scene of a volume that was opened and segmented."""
    mask = np.asarray(nib.load(save(view.page, "mask.nii.gz", folder)).dataobj).astype(np.uint8)
    rows = view.root.locator("li[data-organ]")
    values = dict(rows.evaluate_all("all => all.map(one => [one.dataset.organ, Number(one.dataset.value)])"))
    spacing = volume.geometry.canonical().spacing_mm
    return Scene(view, canonical(volume, volume.hu), canonical(volume, mask), values, spacing, folder)


def jump(scene: Scene, organ: str) -> list[int]:
    scene.view.root.locator(f'li[data-organ="{organ}"] .name').click()
    return scene.view.voxel()


@dataclass(frozen=True)
class Lines:
    """The voxel of a pixel of a tile: two straight lines, drawn through what is told under the cursor."""

    plane: str
    slice: int
    across: tuple[float, float]
    down: tuple[float, float]

    def sample(self, array: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
        """The array at every pixel, and where a pixel lies within it."""
        u, v = ACROSS[self.plane]
        down, over = np.mgrid[: shape[0], : shape[1]]
        columns = np.rint(np.polyval(self.across, over + 0.5)).astype(int)
        rows = np.rint(np.polyval(self.down, down + 0.5)).astype(int)
        inside = (columns >= 0) & (columns < array.shape[u]) & (rows >= 0) & (rows < array.shape[v])
        flat = np.take(array, self.slice, axis=AXIS[self.plane])
        values = flat[np.clip(columns, 0, array.shape[u] - 1), np.clip(rows, 0, array.shape[v] - 1)]
        return values, inside


def lines_of(scene: Scene, plane: str) -> Lines:
    """Fitted from places under the cursor: the page's own geometry is not asked."""
    view, box = scene.view, scene.view.tile(plane)
    u, v = ACROSS[plane]
    told = [(share, view.hover(box.at(*share))) for share in [(s, 0.5) for s in STEPS] + [(0.5, s) for s in STEPS]]
    told = [(share, facts["voxel"]) for share, facts in told if facts["inside"]]
    assert len(told) >= 12
    xs = [(box.at(*share)[0] - round(box.left), voxel[u]) for share, voxel in told]
    ys = [(box.at(*share)[1] - round(box.top), voxel[v]) for share, voxel in told]
    return Lines(plane, view.voxel()[AXIS[plane]], _fit(xs), _fit(ys))


def _fit(pairs: list[tuple[float, int]]) -> tuple[float, float]:
    slope, offset = np.polyfit(*np.array(pairs, float).T, 1)
    return float(slope), float(offset)


def grey(hu: Array, window: tuple[float, float]) -> Array:
    return 255 * np.clip((hu - window[0]) / (window[1] - window[0]), 0, 1)


def likeness(picture: Array, expected: Array, inside: Array) -> float:
    """Correlation of what is drawn with what was expected, within the scan."""
    return float(np.corrcoef(picture.mean(axis=-1)[inside], expected[inside])[0, 1])


def without_colour(scene: Scene) -> None:
    scene.view.button(say("viewer.organs.none")).click()


def letters(view: View, box: Box) -> str:
    """Left, right, top and bottom letter of a tile."""
    found = view.root.locator("svg.overlay text.letter").evaluate_all(
        "all => all.map(one => { const r = one.getBoundingClientRect();"
        " return [one.textContent, r.x + r.width / 2, r.y + r.height / 2] })"
    )
    inside = [
        (text, x, y)
        for text, x, y in found
        if box.left <= x <= box.left + box.width and box.top <= y <= box.top + box.height
    ]
    by_x, by_y = sorted(inside, key=lambda one: one[1]), sorted(inside, key=lambda one: one[2])
    return by_x[0][0] + by_x[-1][0] + by_y[0][0] + by_y[-1][0]


def check_greys(scene: Scene, lines: Lines, window: tuple[float, float]) -> None:
    """Where a voxel and its neighbours have nearly one value, the pixel has its grey."""
    picture = scene.view.pixels("axial")
    flat = np.take(scene.hu, lines.slice, axis=2).astype(float)
    low, high = flat.copy(), flat.copy()
    for axis in (0, 1):
        for step in (1, -1):
            low, high = np.minimum(low, np.roll(low, step, axis)), np.maximum(high, np.roll(high, step, axis))
    expand = lambda one: np.repeat(one[:, :, None], scene.hu.shape[2], axis=2)  # noqa: E731
    (least, inside), (most, _) = (lines.sample(expand(one), picture.shape[:2]) for one in (low, high))
    shade = picture.mean(axis=-1)
    within = (shade >= grey(least, window) - 4) & (shade <= grey(most, window) + 4)
    assert within[inside].mean() > 0.97


def changed(view: View, before: Array) -> Array:
    """The 3-D picture once it differs from what it was."""
    for _ in range(40):
        now = view.pixels("3d")
        if (np.abs(now - before).max(axis=-1) > 20).mean() > 0.005:
            return now
        view.page.wait_for_timeout(250)
    raise AssertionError("The 3-D picture stayed as it was.")


def address_of(page: Page) -> str:
    """Where the routes of the study on the page begin."""
    origin, _, asked = page.url.partition("/?")
    return f"{origin}/medseg/study/{asked.split('study=')[1].split('&')[0]}"


def draft(scene: Scene) -> Array:
    """The corrected mask as the server holds it."""
    answer = scene.page.request.get(f"{address_of(scene.page)}/run/1/mask?draft=1")
    body = answer.body()
    content = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    return np.frombuffer(content, np.uint8).reshape(scene.mask.shape, order="F")


def stroke(scene: Scene, places: list[tuple[float, float]]) -> None:
    with scene.page.expect_response(lambda answer: answer.url.endswith("/edit")):
        drag(scene.page, places)


def drag(page: Page, places: list[tuple[float, float]]) -> None:
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def asked(scene: Scene, button: str) -> None:
    with scene.page.expect_response(lambda answer: answer.url.endswith("/edit")):
        scene.view.button(say(button)).click()


def free_place(scene: Scene, box: Box) -> tuple[float, float]:
    """A corner from which a square of 60 pixels holds no organ, within the scan."""
    for down in (0.1, 0.2, 0.3, 0.6, 0.7):
        for across in (0.1, 0.2, 0.3, 0.4, 0.6, 0.7):
            x, y = box.at(across, down)
            told = [scene.view.hover((x + dx, y + dy)) for dx in (-8, 30, 68) for dy in (-8, 30, 68)]
            if all(one["inside"] and not one["organ"] for one in told):
                return x, y
    raise AssertionError("There is no free place in this slice.")
