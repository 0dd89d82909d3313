"""On a tablet that is held upright: everything is within the screen, and fingers do what the mouse does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.text import say
from tests.browser.conftest import Server, visiting
from tests.browser.hands import View, colour_share, open_scan, segment
from tests.phantoms import phantom_volume, write_nifti

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
WIDTH, HEIGHT = 820, 1180
PRESETS = ("head_neck", "brain", "soft_tissue", "bone", "lung")


@pytest.fixture(scope="module")
def view(browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    path = write_nifti(tmp_path_factory.mktemp("tablet") / "scan.nii.gz", phantom_volume(noise_hu=0))
    with visiting(browser, server, viewport={"width": WIDTH, "height": HEIGHT}, has_touch=True) as page:
        view = open_scan(page, [path])
        segment(page)
        yield view


def test_every_tool_is_within_the_screen(view: View) -> None:
    """The last preset was out of sight once."""
    for preset in PRESETS:
        box = view.root.locator(".bar .preset", has_text=say(f"viewer.preset.{preset}")).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= WIDTH
    ends = view.root.locator("button:visible, select:visible, input:visible").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert max(ends) <= WIDTH
    assert view.page.evaluate("() => document.documentElement.scrollWidth") <= WIDTH


def test_buttons_are_large_enough_for_fingers(view: View) -> None:
    heights = view.root.locator(".bar button:visible").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 34


def test_a_tap_moves_the_crosshair_and_a_preset_is_chosen(view: View) -> None:
    before = view.voxel()
    view.page.touchscreen.tap(*view.tile("axial").at(0.35, 0.6))
    expect(view.root).not_to_have_attribute("data-voxel", ",".join(map(str, before)))
    first = view.pixels("axial")
    button = view.root.locator(".bar .preset", has_text=say("viewer.preset.lung"))
    button.tap()
    expect(button).to_have_attribute("aria-pressed", "true")
    assert (abs(view.pixels("axial") - first) > 10).any()


def test_the_table_scrolls_within_itself(view: View, tmp_path: Path) -> None:
    table = view.page.locator("#organ-table")
    table.scroll_into_view_if_needed()
    assert view.page.evaluate("() => document.documentElement.scrollWidth") <= WIDTH
    assert table.is_visible()
    assert colour_share(view.pixels("axial")) > 0
