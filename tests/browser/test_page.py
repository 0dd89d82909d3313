"""The page as a clinician meets it: the real server, real jobs, a real browser."""

from __future__ import annotations

import gzip
import json
import urllib.request
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from app.text import name_of, say, sentences
from medseg.imaging.volume import Volume
from tests.browser.conftest import Server
from tests.browser.files import (
    check_dicom_seg,
    check_grid,
    check_rtstruct,
    check_seg_nrrd,
    check_surfaces,
    compare_with_measurements,
)
from tests.browser.hands import (
    JOB_MS,
    TISSUE,
    View,
    choose,
    colour_share,
    gone,
    open_scan,
    organ_title,
    save,
    segment,
    shown_rows,
    upload,
)
from tests.browser.scene import address_of
from tests.phantoms import PLANTED_NAME, phantom_volume, write_dicom_series, write_nifti

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_the_example_is_two_clicks_away_from_its_table(page: Page, tmp_path: Path) -> None:
    page.get_by_role("button", name=say("intake.example")).click()
    View(page)
    expect(page.locator(".study-head h2")).to_have_text(say("intake.example.name"))
    page.locator(".st-key-run-first button").click()
    page.locator("#organ-table").wait_for(timeout=JOB_MS)
    compare_with_measurements(page, tmp_path)
    assert colour_share(View(page).pixels("axial")) > 0.001


def test_an_upload_is_seen_before_it_is_segmented_and_its_files_are_right(page: Page, tmp_path: Path) -> None:
    volume = phantom_volume(orientation="LIP")
    view = open_scan(page, [write_nifti(tmp_path / "A. Patient.nii.gz", volume)])
    expect(page.locator(".study-head h2")).to_have_text("A. Patient")
    assert colour_share(view.pixels("axial")) == 0
    segment(page)
    compare_with_measurements(page, tmp_path)
    packed = zipfile.ZipFile(save(page, "all.zip", tmp_path))
    mask = save(page, "mask.nii.gz", tmp_path)
    assert mask.read_bytes() == packed.read("mask.nii.gz")
    check_grid(mask, volume)
    assert not any(b"Patient" in packed.read(name) for name in packed.namelist() if not name.endswith((".png", ".gz")))
    assert b"Patient" not in gzip.decompress(packed.read("mask.nii.gz"))
    assert json.loads(save(page, "run.json", tmp_path).read_text("utf-8"))["input"]["format"] == "nifti"
    expect(page.locator('.downloads [data-file="rtstruct"]')).to_have_count(0)
    expect(page.get_by_text(say("download.needs_dicom"))).to_be_visible()


def test_every_export_of_a_dicom_series_is_opened(page: Page, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "series", phantom_volume(), names=lambda k: f"IM{k:04d}")
    open_scan(page, sorted(folder.iterdir()))
    expect(page.locator(".study-head h2")).to_have_text(say("intake.several", count=36))
    expect(page.locator("body")).not_to_contain_text(PLANTED_NAME.split("^")[0])
    segment(page)
    mask = np.asarray(nib.load(save(page, "mask.nii.gz", tmp_path)).dataobj)
    check_dicom_seg(save(page, "dicom-seg", tmp_path), mask)
    check_rtstruct(save(page, "rtstruct", tmp_path), mask)
    check_seg_nrrd(save(page, "seg.nrrd", tmp_path), mask)
    check_surfaces(save(page, "stl", tmp_path), save(page, "glb", tmp_path))
    assert save(page, "report-pdf", tmp_path).read_bytes().startswith(b"%PDF-")
    report = save(page, "report-html", tmp_path).read_text("utf-8")
    assert all(organ_title(name) in report for name in ("bone", "fat"))
    assert "research use only" in report.lower()


def test_a_stroke_becomes_a_version_of_its_own_and_the_first_one_stays(page: Page, tmp_path: Path) -> None:
    view = open_scan(page, [write_nifti(tmp_path / "drawn.nii.gz", phantom_volume())])
    segment(page)
    before = shown_rows(page)
    view.button(say("viewer.edit")).click()
    view.root.get_by_label(say("viewer.edit.organ")).select_option(label=organ_title("lungs"))
    tools = view.root.get_by_role("toolbar", name=say("viewer.edit"), exact=True)
    expect(tools).to_have_attribute("aria-busy", "false")
    expect(view.button(say("viewer.edit.undo"))).to_be_disabled()
    places = (view.tile("axial").at(across, down) for down in (0.3, 0.7) for across in (0.06, 0.12))
    start = next(place for place in places if view.hover(place).get("hu", 0) < -500)  # no organ is there to be kept
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + 40, start[1], steps=6)
    page.mouse.up()
    expect(view.button(say("viewer.edit.undo"))).to_be_enabled()
    view.button(say("viewer.edit.save")).click()
    expect(page.locator('#organ-table tr[data-organ="lungs"] td').nth(7)).to_have_text(
        say("table.drawn"), timeout=JOB_MS
    )
    after = shown_rows(page)
    assert before["lungs"][1] == say("table.absent")
    assert float(after["lungs"][1].split()[0]) > 0
    assert after["bone"] == before["bone"]
    compare_with_measurements(page, tmp_path)
    page.goto(page.url.replace("result=2", "result=1"))
    page.locator("#organ-table").wait_for()
    assert shown_rows(page) == before


def test_two_results_stand_side_by_side(page: Page, tmp_path: Path) -> None:
    open_scan(page, [write_nifti(tmp_path / "twice.nii.gz", phantom_volume())])
    segment(page)
    study = page.url.split("study=")[1].split("&")[0]
    page.get_by_text(say("model.again"), exact=True).click()
    page.locator(".st-key-run-again button").wait_for()
    segment(page, key="again")
    page.wait_for_url("**result=2**")
    page.goto(f"{page.url.split('?')[0]}?study={study}&result=2&with={study}&with_result=1")
    page.locator("#comparison").wait_for(timeout=JOB_MS)
    rows = page.locator("#comparison tbody tr")
    for cells in rows.evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"):
        assert cells[1] == cells[2]
        assert cells[5] in ("1.000", say("table.none"))
    view = View(page)
    expect(view.root.locator(".stage")).to_have_count(2)


def corrected(page: Page, number: int) -> None:
    """A version with a ball drawn into it."""
    lungs = page.locator('li[data-organ="lungs"]').get_attribute("data-value")
    ball = {"op": "paint", "value": int(lungs or 0), "points": [[6 + 6 * number, 6, 9]], "radius_mm": 9, "ball": True}
    for order in (ball, {"op": "save"}):
        assert page.request.post(f"{address_of(page)}/run/1/edit", data=order).status == 200


def test_the_other_side_shows_the_result_of_the_table_whatever_was_compared_before(page: Page, tmp_path: Path) -> None:
    open_scan(page, [write_nifti(tmp_path / "thrice.nii.gz", phantom_volume())])
    segment(page)
    for number in (2, 3):
        corrected(page, number)
    page.goto(page.url.replace("result=1", "result=3"))
    page.locator("#organ-table").wait_for(timeout=JOB_MS)
    titles, volumes = page.locator(".viewer .side-title"), []
    for number in (1, 2, 1):
        words = say("compare.item", title="thrice", number=number, model=TISSUE)
        with page.expect_response(lambda answer, number=number: answer.url.endswith(f"/run/{number}/mask")):
            choose(page, page.locator(".st-key-compare-with input"), words)
        expect(titles.nth(1)).to_have_text(words)
        expect(page.get_by_text(words, exact=True).last).to_be_visible()
        volumes.append(page.locator('#comparison tr[data-organ="lungs"] td').nth(2).inner_text())
    assert volumes[0] == volumes[2] != volumes[1]


def test_two_visitors_never_see_each_others_scans(page: Page, browser: Browser, tmp_path: Path) -> None:
    open_scan(page, [write_nifti(tmp_path / "mine.nii.gz", phantom_volume())])
    segment(page)
    address, mine = page.url, page.locator('.downloads [data-file="mask.nii.gz"]').get_attribute("href")
    context = browser.new_context()
    try:
        other = context.new_page()
        other.goto(address)
        gone(other)
        expect(other.locator(".viewer")).to_have_count(0)
        origin = address.split("/?")[0]
        for path in (mine, f"{mine}".replace("run/1/file/mask.nii.gz", "volume")):
            assert other.request.get(f"{origin}{path}").status == 404
            assert page.request.get(f"{origin}{path}").status == 200
        other.goto(origin)
        other.get_by_role("heading", name=say("intake.title")).wait_for()
        expect(other.get_by_text("mine", exact=True)).to_have_count(0)
    finally:
        context.close()


def test_a_broken_file_is_answered_with_advice(page: Page, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "broken.nii.gz", phantom_volume())
    path.write_bytes(path.read_bytes()[:4000])
    upload(page, [path])
    alert = page.get_by_role("alert")
    alert.wait_for(timeout=JOB_MS)
    assert "broken.nii.gz:" in alert.inner_text()
    assert "Traceback" not in page.content()
    page.get_by_role("button", name=say("end.again")).click()
    page.get_by_role("heading", name=say("intake.title")).wait_for()


def test_values_that_are_no_hu_are_answered_with_the_pages_own_control(page: Page, tmp_path: Path) -> None:
    body = phantom_volume()
    shifted = Volume(body.hu + 1024, body.geometry, name="shifted")
    upload(page, [write_nifti(tmp_path / "shifted.nii.gz", shifted, dtype=np.uint16)])
    alert = page.get_by_role("alert")
    alert.wait_for(timeout=JOB_MS)
    assert "--accept" not in page.inner_text("body")
    assert say("accept.title") in alert.inner_text()
    page.get_by_text(say("accept.title"), exact=True).click()
    page.locator(".st-key-accept-reason input").fill("planted, shifted on purpose")
    page.locator(".st-key-accept button").click()
    View(page)


def test_a_running_job_is_cancelled_and_leaves_nothing(page: Page, server: Server, tmp_path: Path) -> None:
    large = phantom_volume((320, 320, 220), (0.9, 0.9, 1.2))
    open_scan(page, [write_nifti(tmp_path / "large.nii", large)])
    page.locator(".st-key-run-first button").click()
    page.get_by_role("button", name=say("run.cancel")).click(timeout=JOB_MS)
    page.get_by_text(say("end.cancelled")).wait_for(timeout=JOB_MS)
    page.locator(".st-key-delete button").first.click()
    page.get_by_role("heading", name=say("intake.title")).wait_for()
    for _ in range(120):
        if not list(server.work.glob("medseg-page-*/*/*/input/scan.nii")):
            break
        page.wait_for_timeout(250)
    assert not list(server.work.glob("medseg-page-*/*/*/input/scan.nii"))


def uploaded_files_in_memory(server: Server) -> str:
    with urllib.request.urlopen(f"{server.url}/_stcore/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    assert any("cache" in line for line in lines)
    return "\n".join(line for line in lines if "UploadedFileManager" in line)


def test_a_reload_finds_the_result_and_deleting_it_ends_that(page: Page, server: Server, tmp_path: Path) -> None:
    open_scan(page, [write_nifti(tmp_path / "again.nii.gz", phantom_volume())])
    assert uploaded_files_in_memory(server) == ""  # it lies on the disk, and nowhere else
    segment(page)
    page.reload()
    page.locator("#organ-table").wait_for()
    address = page.url
    assert "study=" in address
    page.locator(".st-key-delete button").first.click()
    page.get_by_role("heading", name=say("intake.title")).wait_for()
    page.goto(address)
    gone(page)
    study = address.split("study=")[1].split("&")[0]
    for _ in range(120):
        if study not in [path.name for path in server.work.glob("medseg-page-*/*/*")]:
            break
        page.wait_for_timeout(250)
    assert study not in [path.name for path in server.work.glob("medseg-page-*/*/*")]


def test_the_page_is_chinese_where_it_is_asked_to_be(page: Page, tmp_path: Path) -> None:
    words = sentences("zh")
    page.get_by_text("简体中文", exact=True).click()
    page.get_by_role("heading", name=words["intake.title"]).wait_for()
    view = open_scan(page, [write_nifti(tmp_path / "zh.nii.gz", phantom_volume())])
    expect(view.button(words["viewer.preset.bone"])).to_be_visible()
    expect(page.locator(".st-key-run-first button")).to_contain_text(words["model.run"])


@pytest.mark.parametrize("name", ["jobs", "models"])
def test_the_menu_leads_to_the_other_pages(page: Page, name: str) -> None:
    page.get_by_role("link", name=say(f"nav.{name}"), exact=True).click()
    page.get_by_role("heading", name=say(f"{name}.title"), exact=True).wait_for()
    assert name_of("nav", name) in page.inner_text("header")
