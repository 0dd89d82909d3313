"""Correcting while the server is slow or out of reach, or while another tab draws: the picture tells the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Request, Route, expect

from app.text import say
from tests.browser.conftest import Server, visiting
from tests.browser.hands import open_scan, segment
from tests.browser.scene import Scene, address_of, asked, draft, drag, free_place, scene_of, stroke
from tests.phantoms import phantom_volume, write_nifti

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
Line = list[tuple[float, float]]


@pytest.fixture(scope="module")
def made(browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    volume, folder = phantom_volume(orientation="LIP", noise_hu=0), tmp_path_factory.mktemp("editing")
    with visiting(browser, server) as page:
        view = open_scan(page, [write_nifti(folder / "scan.nii.gz", volume)])
        segment(page)
        view.root.get_by_label(say("viewer.layout")).select_option("axial")
        yield scene_of(view, volume, folder)


@pytest.fixture
def drawing(made: Scene) -> Iterator[Scene]:
    """A correction under way, on which nobody has drawn."""
    made.view.button(say("viewer.edit")).click()
    expect(tools(made)).to_have_attribute("aria-busy", "false")
    made.view.root.get_by_label(say("viewer.edit.organ")).select_option(value=str(made.values[made.found()[-1]]))
    yield made
    if tools(made).is_visible():
        asked(made, "viewer.edit.discard")
        made.view.button(say("viewer.edit")).click()
    expect(tools(made)).to_have_count(0)


@pytest.fixture
def lines(drawing: Scene) -> list[Line]:
    """Three short lines where no organ is."""
    x, y = free_place(drawing, drawing.view.tile("axial"))
    return [[(x, y + down), (x + 50, y + down)] for down in (0, 28, 56)]


def tools(scene: Scene) -> Locator:
    return scene.view.root.get_by_role("toolbar", name=say("viewer.edit"), exact=True)


def hold(scene: Scene, is_it: Callable[[Request], bool]) -> list[Route]:
    """From now on such requests wait for who holds them."""
    held: list[Route] = []
    scene.page.route("**/*", lambda route: held.append(route) if is_it(route.request) else route.continue_())
    return held


def differs(scene: Scene, before: np.ndarray) -> bool:
    scene.view.settle()
    return bool((np.abs(scene.view.pixels("axial") - before).max(axis=-1) > 3).any())


def save_elsewhere(scene: Scene) -> None:
    """Another tab makes the draft a version; the viewer here does not hear of it."""
    address = address_of(scene.page)
    answer = scene.page.request.post(f"{address}/run/1/edit", data={"op": "save"})
    for _ in range(240):
        if scene.page.request.get(f"{address}/run/{answer.json()['run']}/mask").status == 200:
            return
        scene.page.wait_for_timeout(250)
    raise AssertionError("The version was never made.")


def is_draft(request: Request) -> bool:
    return request.url.endswith("/mask?draft=1")


def test_no_stroke_is_taken_while_saving_and_a_lost_connection_is_said(drawing: Scene, lines: list[Line]) -> None:
    page, save_button = drawing.page, drawing.view.button(say("viewer.edit.save"))
    stroke(drawing, lines[0])
    drawn, picture = draft(drawing), drawing.view.pixels("axial")
    held = hold(drawing, lambda request: request.url.endswith("/edit"))
    save_button.click()
    expect(tools(drawing)).to_have_attribute("aria-busy", "true")
    drag(page, lines[1])
    drawing.view.root.focus()
    page.keyboard.press("Control+z")
    assert not differs(drawing, picture)
    assert [route.request.post_data_json for route in held] == [{"op": "save"}]
    held[0].abort()
    expect(drawing.view.root.locator("output.message")).to_have_text(say("viewer.lost"))
    expect(save_button).to_be_enabled()
    page.unroute_all()
    assert (draft(drawing) == drawn).all()
    stroke(drawing, lines[1])
    assert (draft(drawing) != drawn).any()


def test_what_the_server_answers_after_closing_does_not_come_into_the_picture(
    drawing: Scene, lines: list[Line]
) -> None:
    saved = drawing.view.pixels("axial")
    for line in lines[:2]:
        stroke(drawing, line)
    held = hold(drawing, is_draft)
    asked(drawing, "viewer.edit.undo")
    with drawing.page.expect_response(lambda answer: answer.url.endswith("/run/1/mask")):
        tools(drawing).get_by_role("button", name=say("viewer.edit.close"), exact=True).click()
    assert not differs(drawing, saved)
    with drawing.page.expect_response(lambda answer: is_draft(answer.request)):
        held[0].continue_()
    drawing.page.unroute_all()
    drawing.view.settle()
    assert not differs(drawing, saved)
    drawing.view.button(say("viewer.edit")).click()  # the draft itself is as it was left
    expect(tools(drawing)).to_have_attribute("aria-busy", "false")
    assert differs(drawing, saved)


def test_what_another_tab_has_saved_is_not_shown_as_if_it_were_in_this_draft(drawing: Scene, lines: list[Line]) -> None:
    picture = drawing.view.pixels("axial")
    for line in lines[:2]:
        stroke(drawing, line)
    save_elsewhere(drawing)
    with drawing.page.expect_response(lambda answer: is_draft(answer.request)):
        stroke(drawing, lines[2])
    in_draft = draft(drawing) != drawing.mask
    assert in_draft.any()
    asked(drawing, "viewer.edit.undo")  # the only stroke of the draft that there is now
    assert not differs(drawing, picture)
