"""The page as a clinician meets it: the real server, real jobs, a real browser."""

from __future__ import annotations

import gzip
import io
import json
import re
import urllib.request
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from app.text import name_of, say
from medseg.imaging.volume import Volume
from tests.browser.conftest import Server
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
JOB_MS = 180_000


def choose_tissue(page: Page) -> None:
    page.get_by_text("Tissues by Hounsfield units", exact=True).click()
    expect(page.get_by_role("radio", name="Tissues by Hounsfield units")).to_be_checked()


def upload(page: Page, files: list[Path]) -> None:
    page.locator('input[type="file"]').set_input_files([str(path) for path in files])
    expect(page.get_by_role("button", name=say("intake.run"), exact=True)).to_be_enabled()


def segment(page: Page, title: str) -> None:
    page.get_by_role("button", name=say("intake.run"), exact=True).click()
    page.get_by_role("heading", name=title, exact=True).wait_for(timeout=JOB_MS)
    page.locator("table.organs").wait_for()


def save_download(page: Page, label: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=label).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def shown_rows(page: Page) -> dict[str, list[str]]:
    """Every row of the table: organ -> its cells."""
    rows = page.locator("table.organs tbody tr")
    names = rows.evaluate_all("rows => rows.map(row => row.dataset.organ ?? row.cells[0].textContent.trim())")
    cells = rows.evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))")
    return dict(zip(names, cells, strict=True))


def picture(image: Locator) -> np.ndarray:
    """The pixels that the browser shows of an image."""
    return np.asarray(Image.open(io.BytesIO(image.screenshot())).convert("RGB")).astype(int)


def share_coloured(pixels: np.ndarray) -> float:
    return float(((pixels.max(axis=-1) - pixels.min(axis=-1)) > 25).mean())


def compare_with_measurements(page: Page, packed: zipfile.ZipFile) -> None:
    measured = json.loads(packed.read("measurements.json"))
    rows = shown_rows(page)
    assert len(rows) == len(measured)
    for row in measured:
        cells = rows.get(row["organ"]) or rows[name_of("organ", row["organ"])]
        if row["volume_ml"] == 0:
            assert cells[1] == say("table.absent")
        else:
            # Every row, thousands' commas taken off, to the precision that the page shows.
            assert float(cells[1].replace(",", "")) == pytest.approx(row["volume_ml"], rel=0.05, abs=0.5)
            assert cells[2].replace("−", "-").startswith(f"{row['mean_hu']:.0f} ±")
            assert cells[4] == str(row["slices"])


def test_the_example_is_one_click_away(page: Page, tmp_path: Path) -> None:
    page.get_by_role("button", name=say("intake.example")).click()
    page.get_by_role("heading", name=say("intake.example.name"), exact=True).wait_for(timeout=JOB_MS)
    page.locator("table.organs").wait_for()
    expect(page.locator("[data-testid=stImage] img")).to_have_count(3)
    packed = zipfile.ZipFile(save_download(page, say("result.all"), tmp_path))
    compare_with_measurements(page, packed)
    assert share_coloured(picture(page.locator("[data-testid=stImage] img").first)) > 0.001


def test_upload_see_move_hide_and_download(page: Page, tmp_path: Path) -> None:
    volume = phantom_volume(orientation="LIP")
    upload(page, [write_nifti(tmp_path / "A. Patient.nii.gz", volume)])
    choose_tissue(page)
    segment(page, "A. Patient")

    packed = zipfile.ZipFile(save_download(page, say("result.all"), tmp_path))
    compare_with_measurements(page, packed)
    mask = save_download(page, say("result.mask"), tmp_path)
    assert mask.name.endswith("_mask.nii.gz")
    assert mask.read_bytes() == packed.read("mask.nii.gz")
    check_grid(mask, volume)
    assert not any(b"Patient" in packed.read(name) for name in packed.namelist() if not name.endswith((".png", ".gz")))
    assert b"Patient" not in gzip.decompress(packed.read("mask.nii.gz"))

    axial = page.locator("[data-testid=stImage] img").first
    before = picture(axial)
    assert before.std() > 10
    assert share_coloured(before) > 0.05
    move_slider(page, "Axial", axial)
    hide_all(page, axial)


def check_grid(path: Path, volume: Volume) -> None:
    image = nib.load(path)
    assert image.shape == volume.geometry.shape
    assert np.allclose(image.affine, volume.affine, atol=1e-4)
    assert set(np.unique(np.asarray(image.dataobj))) >= {0, 1}


def move_slider(page: Page, plane: str, image: Locator) -> None:
    """A key press on the slider changes the slice, its number and the picture."""
    slider = page.get_by_role("slider", name=re.compile(f"^{plane} slice"))
    number, alt = (
        slider.input_value() if slider.evaluate("e => e.tagName") == "INPUT" else "",
        image.get_attribute("alt"),
    )
    before = picture(image)
    slider.press("ArrowRight")
    expect(image).not_to_have_attribute("alt", alt or "")
    page.wait_for_timeout(500)
    assert (picture(image) != before).any()
    assert not number or slider.input_value() != number


def hide_all(page: Page, image: Locator) -> None:
    pills = page.get_by_label(say("viewer.organs")).get_by_role("button")
    for index in range(pills.count()):
        pills.nth(index).click()
        page.wait_for_timeout(300)
    page.wait_for_timeout(1500)
    assert share_coloured(picture(image)) < 0.002


def test_several_dicom_files_are_one_scan(page: Page, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "series", phantom_volume(), names=lambda k: f"IM{k:04d}")
    upload(page, sorted(folder.iterdir()))
    choose_tissue(page)
    segment(page, "36 files")
    packed = zipfile.ZipFile(save_download(page, say("result.all"), tmp_path))
    compare_with_measurements(page, packed)
    assert json.loads(packed.read("run.json"))["input"]["format"] == "dicom"


def test_a_broken_file_is_answered_with_advice(page: Page, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "broken.nii.gz", phantom_volume())
    path.write_bytes(path.read_bytes()[:4000])
    upload(page, [path])
    page.get_by_role("button", name=say("intake.run"), exact=True).click()
    alert = page.get_by_role("alert")
    alert.wait_for(timeout=JOB_MS)
    assert "broken.nii.gz:" in alert.inner_text()
    assert "Traceback" not in page.content()
    page.get_by_role("button", name=say("end.again")).click()
    page.get_by_role("heading", name=say("intake.title")).wait_for()


def test_a_running_job_is_cancelled_and_leaves_nothing(page: Page, server: Server, tmp_path: Path) -> None:
    large = phantom_volume((320, 320, 220), (0.9, 0.9, 1.2))
    upload(page, [write_nifti(tmp_path / "large.nii", large)])
    choose_tissue(page)
    page.get_by_role("button", name=say("intake.run"), exact=True).click()
    page.get_by_role("progressbar").wait_for(timeout=JOB_MS)
    page.get_by_role("button", name=say("run.cancel")).click()
    page.get_by_text(say("end.cancelled")).wait_for(timeout=30_000)
    page.get_by_role("button", name=say("end.again")).click()
    page.get_by_role("heading", name=say("intake.title")).wait_for()
    page.wait_for_timeout(1000)
    assert not list(server.work.glob("medseg-page-*/*/*/input/scan.nii"))


def uploaded_files_in_memory(server: Server) -> str:
    with urllib.request.urlopen(f"{server.url}/_stcore/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    assert any("cache" in line for line in lines)
    return "\n".join(line for line in lines if "UploadedFileManager" in line)


def test_a_reload_finds_the_result_and_deleting_it_ends_that(page: Page, server: Server, tmp_path: Path) -> None:
    upload(page, [write_nifti(tmp_path / "again.nii.gz", phantom_volume())])
    assert uploaded_files_in_memory(server) != ""
    choose_tissue(page)
    segment(page, "again")
    for _ in range(40):  # Streamlit lets go of a file some time after the page did
        if uploaded_files_in_memory(server) == "":
            break
        page.wait_for_timeout(500)
    assert uploaded_files_in_memory(server) == ""
    page.reload()
    page.locator("table.organs").wait_for()
    address = page.url
    assert "study=" in address
    page.get_by_role("button", name=say("result.delete")).click()
    page.get_by_role("heading", name=say("intake.title")).wait_for()
    page.goto(address)
    page.get_by_text(say("end.gone")).wait_for()
    assert address.split("study=")[1] not in [path.name for path in server.work.glob("medseg-page-*/*/*")]
