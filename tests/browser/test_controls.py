"""Every control of the viewer, on a computed body and on a real CT: what is drawn is compared with numpy's arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from app.text import say
from medseg.imaging import read_volume
from medseg.imaging.volume import Volume
from tests.browser.conftest import Server, visiting
from tests.browser.files import compare_with_measurements
from tests.browser.hands import TISSUE, colour_share, open_scan, segment, shown_rows
from tests.browser.scene import (
    AXIS,
    Lines,
    Scene,
    asked,
    changed,
    check_greys,
    draft,
    free_place,
    grey,
    jump,
    letters,
    likeness,
    lines_of,
    scene_of,
    stroke,
    without_colour,
)
from tests.phantoms import phantom_volume, write_nifti

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
PLANES = list(AXIS)
PRESETS = {
    "head_neck": (-140, 260),
    "brain": (0, 80),
    "soft_tissue": (-135, 215),
    "bone": (-500, 1500),
    "lung": (-1350, 150),
}
HEAD = "openkbp_hn/validation/pt_201_ct.nii.gz"


def scan_of(kind: str, real_data: Path | None, folder: Path) -> tuple[Path, Volume, str]:
    """File, volume and title of the model that is run on it."""
    if kind == "computed":
        volume = phantom_volume(orientation="LIP", noise_hu=0)
        return write_nifti(folder / "scan.nii.gz", volume), volume, TISSUE
    assert real_data is not None
    return real_data / HEAD, read_volume(real_data / HEAD), "Head and neck, organs at risk"


@pytest.fixture(scope="module", params=["computed", pytest.param("real", marks=pytest.mark.real)])
def made(
    request: pytest.FixtureRequest, browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    kind, folder = request.param, tmp_path_factory.mktemp("controls")
    real = request.getfixturevalue("real_data") if kind == "real" else None
    path, volume, model = scan_of(kind, real, folder)
    with visiting(browser, server) as page:
        view = open_scan(page, [path])
        segment(page, model)
        yield scene_of(view, volume, folder)


@pytest.fixture
def scene(made: Scene) -> Scene:
    """As a visitor finds it: three planes, all organs, soft tissue, the crosshair's tool, the middle of an organ."""
    view = made.view
    view.root.focus()
    for key in ("Escape", "n", "0", "Delete"):
        made.page.keyboard.press(key)
    view.root.get_by_label(say("viewer.layout")).select_option("mpr")
    view.button(say("viewer.organs.all")).click()
    view.button(say("viewer.preset.soft_tissue")).click()
    view.root.get_by_label(say("viewer.opacity")).fill("45")
    jump(made, made.found()[0])
    return made


@pytest.mark.parametrize("plane", PLANES)
def test_the_picture_is_the_slice_and_its_letters_stand_at_the_right_sides(scene: Scene, plane: str) -> None:
    without_colour(scene)
    lines, picture = lines_of(scene, plane), scene.view.pixels(plane)
    values, inside = lines.sample(scene.hu, picture.shape[:2])
    assert picture[inside].std() > 10
    drawn = grey(values, PRESETS["soft_tissue"])
    here = likeness(picture, drawn, inside)
    assert here > 0.9
    for turned in (drawn[:, ::-1], drawn[::-1]):
        if np.corrcoef(turned[inside], drawn[inside])[0, 1] < 0.9:  # a mirrored picture would be another one
            assert likeness(picture, turned, inside) < here
    assert letters(scene.view, scene.view.tile(plane)) == LETTERS[plane]
    assert lines.across[0] < 0  # right, and in the sagittal plane the front, is on the left
    assert lines.down[0] < 0  # front and head are above


@pytest.mark.parametrize("plane", PLANES)
def test_a_click_tells_numpys_hu_and_organ(scene: Scene, plane: str) -> None:
    names, seen = {value: name for name, value in scene.values.items()}, 0
    start = scene.view.voxel()
    for share in [(a, d) for a in (0.3, 0.45, 0.55, 0.7) for d in (0.35, 0.5, 0.65)]:
        place = scene.view.tile(plane).at(*share)
        told = scene.view.hover(place)
        if not told["inside"]:
            continue
        voxel = tuple(told["voxel"])
        assert voxel[AXIS[plane]] == start[AXIS[plane]]
        assert told["hu"] == int(scene.hu[voxel])
        assert told["organ"] == names.get(int(scene.mask[voxel]), "")
        seen += 1
    assert seen >= 8
    scene.page.mouse.click(*scene.view.tile(plane).at(0.5, 0.5))
    told = scene.view.hover(scene.view.tile(plane).at(0.5, 0.5))
    assert scene.view.voxel() == told["voxel"]


def test_beyond_the_scan_no_value_is_told(scene: Scene) -> None:
    scene.view.root.get_by_label(say("viewer.layout")).select_option("axial")
    scene.view.root.focus()
    for _ in range(3):
        scene.page.keyboard.press("-")
    box = scene.view.tile("axial")
    edges = [scene.view.hover(box.at(*share)) for share in ((0.01, 0.5), (0.99, 0.5), (0.5, 0.01), (0.5, 0.99))]
    assert any(not told["inside"] for told in edges)


def test_colour_lies_on_the_mask_alone(scene: Scene) -> None:
    """With each organ that is large enough, shown alone."""
    for organ in scene.found()[:3]:
        jump(scene, organ)
        scene.view.root.locator(f'li[data-organ="{organ}"] .solo').click()
        lines, coloured = lines_of(scene, "axial"), scene.view.pixels("axial")
        without_colour(scene)
        differs = np.abs(coloured - scene.view.pixels("axial")).max(axis=-1) > 3
        expected, inside = lines.sample(scene.mask == scene.values[organ], differs.shape)
        expected = expected & inside
        assert expected.sum() > 20
        assert 2 * (differs & expected).sum() / (differs.sum() + expected.sum()) > 0.85
        scene.view.button(say("viewer.organs.all")).click()


def test_an_organ_is_hidden_and_the_others_stay(scene: Scene) -> None:
    first, *others = scene.found()
    with_all = scene.view.pixels("axial")
    scene.view.root.locator(f'li[data-organ="{first}"] .eye').click()
    expect(scene.view.root.locator(f'li[data-organ="{first}"] .eye')).to_have_attribute("aria-pressed", "false")
    assert (np.abs(scene.view.pixels("axial") - with_all).max(axis=-1) > 3).any()
    jump(scene, others[0])
    assert colour_share(scene.view.pixels("axial")) > 0
    scene.view.root.locator(f'li[data-organ="{first}"] .eye').click()
    jump(scene, first)
    assert np.abs(scene.view.pixels("axial") - with_all).max() <= 3


def test_a_jump_ends_within_the_organ(scene: Scene) -> None:
    for organ in scene.found():
        assert scene.mask[tuple(jump(scene, organ))] == scene.values[organ]


def test_an_outline_colours_less(scene: Scene) -> None:
    full = colour_share(scene.view.pixels("axial"))
    scene.view.button(say("viewer.outline")).click()
    line = colour_share(scene.view.pixels("axial"))
    scene.view.button(say("viewer.outline")).click()
    assert 0 < line < full


def test_opacity_goes_from_nothing_to_the_colour_itself(scene: Scene) -> None:
    slider = scene.view.root.get_by_label(say("viewer.opacity"))
    slider.fill("0")
    nothing = scene.view.pixels("axial")
    without_colour(scene)
    assert np.abs(scene.view.pixels("axial") - nothing).max() <= 1
    scene.view.button(say("viewer.organs.all")).click()
    shares = []
    for strength in ("20", "60", "100"):
        slider.fill(strength)
        shares.append(np.abs(scene.view.pixels("axial") - nothing).sum())
    assert 0 < shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_gives_the_greys_of_its_window(scene: Scene, preset: str) -> None:
    without_colour(scene)
    lines = lines_of(scene, "axial")
    windows = scene.view.root.get_by_role("group", name=say("viewer.window"))  # an organ can be called Bone, too
    button = windows.get_by_role("button", name=say(f"viewer.preset.{preset}"), exact=True)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    check_greys(scene, lines, PRESETS[preset])


def test_a_drag_sets_the_window_and_the_greys_follow(scene: Scene) -> None:
    without_colour(scene)
    lines, box = lines_of(scene, "axial"), scene.view.tile("axial")
    scene.view.button(say("viewer.tool.window")).click()
    start = box.at(0.5, 0.5)
    scene.page.mouse.move(*start)
    scene.page.mouse.down()
    scene.page.mouse.move(start[0] + 70, start[1] + 30, steps=5)
    scene.page.mouse.up()
    level, width = (
        float(scene.view.root.get_by_label(say(f"viewer.window.{name}")).input_value()) for name in ("level", "width")
    )
    assert width > 350
    assert level != 40
    check_greys(scene, lines, (level - width / 2, level + width / 2))


def test_the_wheel_goes_through_slices_zooms_and_returns(scene: Scene) -> None:
    without_colour(scene)
    lines, first = lines_of(scene, "axial"), scene.view.pixels("axial")
    place = scene.view.tile("axial").at(0.5, 0.5)
    scene.page.mouse.move(*place)
    scene.page.mouse.wheel(0, 120)
    scene.view.settle()
    there = scene.view.voxel()[2]
    assert there != lines.slice
    moved = Lines("axial", there, lines.across, lines.down)
    values, inside = moved.sample(scene.hu, first.shape[:2])
    assert likeness(scene.view.pixels("axial"), grey(values, PRESETS["soft_tissue"]), inside) > 0.9
    scene.page.mouse.wheel(0, -120)
    scene.page.keyboard.down("Control")
    scene.page.mouse.wheel(0, -300)
    scene.page.keyboard.up("Control")
    assert (np.abs(scene.view.pixels("axial") - first) > 20).mean() > 0.02
    scene.view.button(say("viewer.reset")).click()
    assert np.abs(scene.view.pixels("axial") - first).mean() < 2


def test_a_distance_is_that_of_the_voxels(scene: Scene) -> None:
    box = scene.view.tile("coronal")
    ends = box.at(0.4, 0.45), box.at(0.6, 0.6)
    voxels = [np.array(scene.view.hover(end)["voxel"]) for end in ends]
    scene.view.button(say("viewer.tool.measure")).click()
    scene.page.mouse.move(*ends[0])
    scene.page.mouse.down()
    scene.page.mouse.move(*ends[1], steps=4)
    scene.page.mouse.up()
    expected = float(np.linalg.norm((voxels[0] - voxels[1]) * scene.spacing))
    measured = float(scene.view.root.get_attribute("data-measure") or 0)
    assert measured == pytest.approx(expected, abs=1.5 * max(scene.spacing))
    assert scene.view.root.locator("svg.overlay text", has_text=f"{measured:.1f} mm").count() == 1
    scene.page.keyboard.press("Delete")
    assert scene.view.root.locator("svg.overlay text", has_text=f"{measured:.1f} mm").count() == 0


def test_every_layout_shows_its_planes(scene: Scene) -> None:
    layouts = {"mpr": set(PLANES), "four": {*PLANES, "3d"}, **{plane: {plane} for plane in PLANES}, "3d": {"3d"}}
    for layout, planes in layouts.items():
        scene.view.root.get_by_label(say("viewer.layout")).select_option(layout)
        scene.view.settle()
        shown = scene.view.root.locator("rect.tile").evaluate_all("all => all.map(one => one.dataset.plane)")
        assert set(shown) == planes


def test_the_solid_picture_has_organs_bones_a_cloud_and_cuts(scene: Scene) -> None:
    view = scene.view
    view.root.get_by_label(say("viewer.layout")).select_option("3d")
    expect(view.root.locator("output.message")).to_have_text("", timeout=60_000)
    organs = view.pixels("3d")
    assert colour_share(organs) > 0.01
    button = view.button(say("viewer.bones"))
    with scene.page.expect_response(lambda answer: "bone.mz3" in answer.url, timeout=90_000):
        button.click()
    changed(view, organs)
    expect(button).to_have_attribute("aria-pressed", "true")
    whole = view.pixels("3d")
    cuts = []
    for plane in PLANES:
        view.root.get_by_label(say("viewer.cut"), exact=True).select_option(plane)
        cuts.append(changed(view, whole))
    view.button(say("viewer.cut.flip")).click()
    changed(view, cuts[-1])
    view.button(say("viewer.cut.flip")).click()
    view.root.get_by_label(say("viewer.cut"), exact=True).select_option("")
    button.click()
    view.button(say("viewer.volume3d")).click()
    cloud = changed(view, organs)
    assert cloud.std() > 5
    view.button(say("viewer.volume3d")).click()


def test_a_turned_body_is_seen_from_another_side(scene: Scene) -> None:
    view = scene.view
    view.root.get_by_label(say("viewer.layout")).select_option("3d")
    expect(view.root.locator("output.message")).to_have_text("", timeout=60_000)
    before, box = view.pixels("3d"), view.tile("3d")
    scene.page.mouse.move(*box.at(0.5, 0.5))
    scene.page.mouse.down()
    scene.page.mouse.move(*box.at(0.7, 0.45), steps=4)
    scene.page.mouse.up()
    changed(view, before)


def test_a_saved_picture_shows_what_is_seen(scene: Scene) -> None:
    box, shown = scene.view.tile("axial"), scene.view.pixels("axial")
    with scene.page.expect_download() as waiting:
        scene.view.button(say("viewer.screenshot")).click()
    waiting.value.save_as(scene.folder / "view.png")
    sheet = Image.open(scene.folder / "view.png").convert("RGB")
    stage = scene.view.root.locator(".stages").bounding_box()
    assert stage is not None
    scale = sheet.width / stage["width"]
    corner = (box.left - stage["x"]) * scale, (box.top - stage["y"]) * scale
    area = (*corner, corner[0] + box.width * scale, corner[1] + box.height * scale)
    saved = np.asarray(sheet.crop(tuple(map(round, area))).resize(shown.shape[1::-1])).astype(float)
    assert (
        np.corrcoef(saved.mean(axis=-1).ravel(), shown.mean(axis=-1).ravel())[0, 1] > 0.8
    )  # letters and lines are only there
    assert colour_share(saved) > 0


def test_full_screen_and_back(scene: Scene) -> None:
    before = scene.view.tile("axial")
    scene.view.button(say("viewer.fullscreen")).click()
    scene.page.wait_for_function("() => document.fullscreenElement !== null")
    scene.view.settle()
    assert scene.view.pixels("axial").std() > 10
    scene.view.root.focus()
    scene.page.keyboard.press("f")
    scene.page.wait_for_function("() => document.fullscreenElement === null")
    scene.view.settle()
    after = scene.view.tile("axial")
    assert after.width == pytest.approx(before.width, abs=4)


def test_keys_do_what_the_help_card_says(scene: Scene) -> None:
    view, keys = scene.view, scene.page.keyboard
    view.root.focus()
    coloured = view.pixels("axial")
    keys.press("o")
    assert colour_share(view.pixels("axial")) < colour_share(coloured)
    keys.press("o")
    assert np.abs(view.pixels("axial") - coloured).max() <= 3
    count = view.root.locator("svg.overlay line, svg.overlay polyline, svg.overlay path").count()
    keys.press("x")
    view.settle()
    assert view.root.locator("svg.overlay line, svg.overlay polyline, svg.overlay path").count() < count
    keys.press("x")
    for key, tool in (("b", "window"), ("p", "pan"), ("m", "measure"), ("n", "move")):
        keys.press(key)
        expect(view.root).to_have_attribute("data-tool", tool)
    keys.press("j")
    assert scene.mask[tuple(view.voxel())] > 0
    at = view.voxel()
    keys.press("ArrowLeft")
    view.settle()
    assert sum(abs(n - m) for n, m in zip(view.voxel(), at, strict=True)) == 1
    keys.press("l")
    expect(view.button(say("viewer.outline"))).to_have_attribute("aria-pressed", "true")
    keys.press("l")


def test_the_table_is_that_of_the_csv(scene: Scene) -> None:
    compare_with_measurements(scene.page, scene.folder)
    voxel_ml = float(np.prod(scene.spacing)) / 1000
    for organ, cells in shown_rows(scene.page).items():
        counted = int((scene.mask == scene.values[organ]).sum()) * voxel_ml
        if counted:
            assert float(cells[1].split()[0].replace(",", "")) == pytest.approx(counted, rel=0.05, abs=0.006)


def test_pen_eraser_fill_and_undo_change_the_voxels_that_are_seen(scene: Scene) -> None:
    view, organ = scene.view, scene.found()[-1]
    view.root.get_by_label(say("viewer.layout")).select_option("axial")
    view.button(say("viewer.edit")).click()
    expect(view.root.get_by_role("toolbar", name=say("viewer.edit"), exact=True)).to_have_attribute(
        "aria-busy", "false"
    )
    value = scene.values[organ]
    view.root.get_by_label(say("viewer.edit.organ")).select_option(value=str(value))
    box, slice_ = view.tile("axial"), view.voxel()[2]
    free = free_place(scene, box)
    side = 60
    ring = [(free[0] + dx * side, free[1] + dy * side) for dx, dy in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]
    before = view.pixels("axial")
    stroke(scene, ring)
    drawn = draft(scene)
    changed = drawn != scene.mask
    assert changed.any()
    assert set(np.unique(drawn[changed])) == {value}
    assert set(np.flatnonzero(changed.any(axis=(0, 1)))) == {slice_}  # a disc in its plane
    assert (np.abs(view.pixels("axial") - before).max(axis=-1) > 3).any()
    view.button(say("viewer.edit.fill")).click()
    stroke(scene, [(free[0] + side / 2, free[1] + side / 2)])
    filled = draft(scene)
    assert (filled == value).sum() > (drawn == value).sum()
    asked(scene, "viewer.edit.undo")
    assert (draft(scene) == drawn).all()
    asked(scene, "viewer.edit.redo")
    assert (draft(scene) == filled).all()
    view.button(say("viewer.edit.erase")).click()
    stroke(scene, ring)
    erased = draft(scene)
    assert (erased == value).sum() < (filled == value).sum()
    assert not ((erased == 0) & (filled != 0) & (filled != value)).any()  # other organs are left alone
    asked(scene, "viewer.edit.discard")
    assert (draft(scene) == scene.mask).all()
    view.button(say("viewer.edit")).click()
    expect(view.root).to_have_attribute("data-tool", "move")
