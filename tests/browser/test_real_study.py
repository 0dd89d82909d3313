"""A real DICOM series through the page: handed in as a zip, seen, segmented, and every file of it opened."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from medseg.imaging import read_volume
from tests.browser.files import (
    check_dicom_seg,
    check_grid,
    check_rtstruct,
    check_seg_nrrd,
    check_surfaces,
    compare_with_measurements,
)
from tests.browser.hands import canonical, open_scan, save, segment

pytestmark = [pytest.mark.browser, pytest.mark.real, pytest.mark.timeout(1200)]


def test_a_thigh_of_an_archive_is_segmented_and_its_files_are_right(
    page: Page, real_data: Path, tmp_path: Path
) -> None:
    path = real_data / "dicom" / "sts_001.zip"
    volume = read_volume(path)
    view = open_scan(page, [path])
    expect(page.locator(".study-head h2")).to_have_text("sts_001")
    hu = canonical(volume, volume.hu)
    for share in ((0.4, 0.5), (0.5, 0.5), (0.6, 0.45)):
        told = view.hover(view.tile("axial").at(*share))
        assert told["hu"] == int(hu[tuple(told["voxel"])])
    segment(page)
    compare_with_measurements(page, tmp_path)
    mask_path = save(page, "mask.nii.gz", tmp_path)
    check_grid(mask_path, volume)
    mask = np.asarray(nib.load(mask_path).dataobj)
    check_dicom_seg(save(page, "dicom-seg", tmp_path), mask)
    check_rtstruct(save(page, "rtstruct", tmp_path), mask)
    check_seg_nrrd(save(page, "seg.nrrd", tmp_path), mask)
    check_surfaces(save(page, "stl", tmp_path), save(page, "glb", tmp_path))
    assert save(page, "report-pdf", tmp_path).read_bytes().startswith(b"%PDF-")
    assert "research use only" in save(page, "report-html", tmp_path).read_text("utf-8").lower()
