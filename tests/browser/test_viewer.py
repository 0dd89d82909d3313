"""The viewer in a real browser: what its pixels show is what the arrays hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app.text import say
from medseg.imaging.volume import Array
from tests.browser.hands import View, canonical, colour_share, open_scan, save, segment
from tests.phantoms import phantom_volume, write_nifti

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
SOFT = (-135, 215)
VOLUME = phantom_volume(orientation="LIP", noise_hu=0)
HU = canonical(VOLUME, VOLUME.hu)
SHARES = [(a, d) for a in (0.2, 0.36, 0.5, 0.64, 0.8) for d in (0.25, 0.42, 0.58, 0.75)]


@pytest.fixture
def view(page: Page, tmp_path: Path) -> View:
    return open_scan(page, [write_nifti(tmp_path / "scan.nii.gz", VOLUME)])


@pytest.fixture
def segmented(view: View) -> View:
    segment(view.page)
    view.button(say("viewer.preset.soft_tissue")).click()
    return view


def is_flat(hu: Array, voxel: list[int]) -> bool:
    """Whether all neighbours have one value: where the picture is not blended between voxels."""
    around = hu[tuple(slice(max(0, n - 1), n + 2) for n in voxel)]
    return bool(np.ptp(around) == 0)


def grey(hu: float, window: tuple[int, int]) -> float:
    return 255 * float(np.clip((hu - window[0]) / (window[1] - window[0]), 0, 1))


def pixel(pixels: Array, share: tuple[float, float]) -> Array:
    down, across = pixels.shape[:2]
    return pixels[round(down * share[1]), round(across * share[0])]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_pixel_has_the_grey_of_the_value_that_is_told_under_the_cursor(view: View, plane: str) -> None:
    view.button(say("viewer.preset.soft_tissue")).click()
    pixels, seen = view.pixels(plane), 0
    assert pixels.std() > 10
    for share in SHARES:
        told = view.hover(view.tile(plane).at(*share))
        if not told["inside"]:
            continue
        assert told["hu"] == HU[tuple(told["voxel"])]
        if is_flat(HU, told["voxel"]):
            seen += 1
            assert np.abs(pixel(pixels, share) - grey(told["hu"], SOFT)).max() <= 4
    assert seen >= 8


def test_the_patients_right_is_on_the_left_and_the_letters_say_so(view: View) -> None:
    box = view.tile("axial")
    letters = view.root.locator("svg.overlay text.letter").evaluate_all(
        "all => all.map(one => [one.textContent, one.getBoundingClientRect().x, one.getBoundingClientRect().y])"
    )
    inside = [(text, x, y) for text, x, y in letters if x < box.left + box.width and y < box.top + box.height]
    by_x, by_y = sorted(inside, key=lambda one: one[1]), sorted(inside, key=lambda one: one[2])
    assert (by_x[0][0], by_x[-1][0], by_y[0][0], by_y[-1][0]) == ("R", "L", "A", "P")
    left, right = (view.hover(box.at(share, 0.5))["voxel"][0] for share in (0.3, 0.7))
    assert left > right  # canonical x grows towards the patient's right
    upper, lower = (view.hover(box.at(0.5, share))["voxel"][1] for share in (0.3, 0.7))
    assert upper > lower


def test_colour_lies_where_the_mask_is_and_nowhere_else(segmented: View, tmp_path: Path) -> None:
    view = segmented
    with_colour = view.pixels("axial")
    view.button(say("viewer.organs.none")).click()
    without = view.pixels("axial")
    assert colour_share(with_colour) > 0.05
    assert colour_share(without) == 0
    differs, checked = np.abs(with_colour - without).max(axis=-1) > 3, 0
    mask = canonical(VOLUME, np.asarray(_mask(save(view.page, "mask.nii.gz", tmp_path))))
    for share in SHARES:
        told = view.hover(view.tile("axial").at(*share))
        if told["inside"] and is_flat(mask, told["voxel"]):
            checked += 1
            assert bool(pixel(differs[..., None], share)[0]) is bool(mask[tuple(told["voxel"])])
            assert bool(told["organ"]) is bool(mask[tuple(told["voxel"])])
    assert checked >= 8


def _mask(path: Path) -> Array:
    import nibabel as nib

    return np.asarray(nib.load(path).dataobj)


def test_an_organ_is_shown_alone_gone_to_and_made_fainter(segmented: View) -> None:
    view = segmented
    row = view.root.locator('li[data-organ="bone"]')
    row.locator(".solo").click()
    alone = view.pixels("axial")
    expect(view.root.locator('li[data-organ="fat"] .eye')).to_have_attribute("aria-pressed", "false")
    row.locator(".name").click()
    assert HU[tuple(view.voxel())] > 200  # the middle of the bone is bone
    view.button(say("viewer.organs.all")).click()
    strong = colour_share(view.pixels("axial"))
    assert colour_share(alone) < strong
    view.root.get_by_label(say("viewer.opacity")).fill("0")
    assert colour_share(view.pixels("axial")) < strong / 10


def test_slices_and_windows_do_not_wait_for_the_server(view: View) -> None:
    frames: list[str] = []
    view.page.on("request", lambda request: frames.append(request.url))
    before, first = view.voxel(), view.pixels("axial")
    view.page.mouse.move(*view.tile("axial").at(0.5, 0.5))
    view.page.mouse.wheel(0, 100)
    expect(view.root).not_to_have_attribute("data-voxel", ",".join(map(str, before)))
    assert [n == m for n, m in zip(view.voxel(), before, strict=True)] == [True, True, False]
    view.button(say("viewer.preset.bone")).click()
    assert (view.pixels("axial") != first).any()
    assert all("/at?" in url for url in frames)  # nothing but the words under the cursor


def test_dragging_sets_the_window_and_keys_move(view: View) -> None:
    width = view.root.get_by_label(say("viewer.window.width"))
    before = float(width.input_value())
    start = view.tile("axial").at(0.4, 0.4)
    view.page.mouse.move(*start)
    view.page.mouse.down(button="right")
    view.page.mouse.move(start[0] + 60, start[1], steps=4)
    view.page.mouse.up(button="right")
    assert float(width.input_value()) > before + 20
    view.root.focus()
    at = view.voxel()
    view.page.keyboard.press("PageUp")
    expect(view.root).to_have_attribute("data-voxel", f"{at[0]},{at[1]},{at[2] + 1}")
    view.page.keyboard.press("2")
    expect(view.button(say("viewer.preset.brain"))).to_have_attribute("aria-pressed", "true")
    view.page.keyboard.press("h")
    expect(view.root.get_by_role("dialog", name=say("viewer.help"))).to_be_visible()
    view.page.keyboard.press("Escape")
    expect(view.root.get_by_role("dialog", name=say("viewer.help"))).to_be_hidden()


def test_a_distance_is_measured_in_millimetres(view: View) -> None:
    box = view.tile("axial")
    ends = box.at(0.35, 0.5), box.at(0.65, 0.5)
    voxels = [view.hover(end)["voxel"] for end in ends]
    view.button(say("viewer.tool.measure")).click()
    view.page.mouse.move(*ends[0])
    view.page.mouse.down()
    view.page.mouse.move(*ends[1], steps=4)
    view.page.mouse.up()
    measured = float(view.root.get_attribute("data-measure") or 0)
    assert measured == pytest.approx(3.5 * abs(voxels[0][0] - voxels[1][0]), abs=3.6)
    assert view.root.locator("svg.overlay text", has_text=f"{measured:.1f} mm").count() == 1


def test_the_solid_picture_shows_organs_and_can_be_cut(segmented: View) -> None:
    view = segmented
    view.root.get_by_label(say("viewer.layout")).select_option("3d")
    expect(view.root.locator("output.message")).to_have_text("", timeout=60_000)
    whole = view.pixels("3d")
    assert whole.std() > 5
    view.root.get_by_label(say("viewer.cut"), exact=True).select_option("coronal")
    assert (np.abs(view.pixels("3d") - whole).max(axis=-1) > 20).mean() > 0.01


def test_an_organ_without_a_surface_leaves_the_others_theirs(segmented: View) -> None:
    view, asked = segmented, list[str]()
    rows = view.root.locator("li[data-organ]").filter(has_not=view.page.locator(".volume", has_text=say("table.none")))
    values = rows.evaluate_all("all => all.map(one => one.dataset.value)")
    view.page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    view.page.route(f"**/surface/1/{values[0]}.mz3", lambda route: route.fulfill(status=404))
    with view.page.expect_response(lambda answer: answer.url.endswith(f"/{values[-1]}.mz3"), timeout=60_000):
        view.root.get_by_label(say("viewer.layout")).select_option("3d")
    expect(view.root.locator("output.message")).to_have_text("")
    assert colour_share(view.pixels("3d")) > 0.01
    view.button(say("viewer.outline")).click()
    view.settle()
    assert sorted(name for name in asked if name.endswith(".mz3")) == sorted(f"{value}.mz3" for value in values)


def test_a_picture_is_saved(view: View, tmp_path: Path) -> None:
    with view.page.expect_download() as waiting:
        view.button(say("viewer.screenshot")).click()
    waiting.value.save_as(tmp_path / "view.png")
    assert np.asarray(Image.open(tmp_path / "view.png").convert("L")).std() > 10


def test_a_browser_without_webgl_sees_slices_all_the_same(page: Page, tmp_path: Path) -> None:
    page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        " return kind.startsWith('webgl') ? null : get.call(this, kind, ...rest) }"
    )
    page.reload()
    path = write_nifti(tmp_path / "scan.nii.gz", VOLUME)
    page.locator('input[type="file"]').set_input_files(str(path))
    view = View(page, "flat")
    expect(view.root.get_by_text(say("viewer.flat"))).to_be_visible()
    images = view.root.locator("img")
    expect(images.first).to_be_visible()
    assert images.first.evaluate("image => image.naturalWidth") > 0


def test_lines_and_letters_follow_where_the_pictures_give_way(segmented: View) -> None:
    """The list of organs takes room while the viewer as a whole keeps its size."""
    pictures, tiles = segmented.root.locator(".stages"), segmented.root.locator("rect.tile")
    widths = []
    for side in ("256px", "456px"):
        segmented.root.locator(".side").evaluate("(panel, width) => { panel.style.width = width }", side)
        segmented.settle()
        segmented.settle()
        place = pictures.bounding_box()
        assert place is not None
        ends = tiles.evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
        assert max(ends) == pytest.approx(place["x"] + place["width"], abs=3)
        widths.append(place["width"])
    assert widths[0] - widths[1] == pytest.approx(200, abs=1)
