"""Files that a visitor downloads, opened and compared with what the page shows and what was handed in."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Page

from app.text import say
from medseg.imaging.volume import Volume
from tests.browser.hands import organ_title, save, shown_rows


def compare_with_measurements(page: Page, folder: Path) -> None:
    """The table, row by row, with the file that is downloaded."""
    with save(page, "measurements.csv", folder).open(encoding="utf-8") as file:
        measured = list(csv.DictReader(file))
    rows = shown_rows(page)
    assert list(rows) == [row["organ"] for row in measured]
    for row in measured:
        cells = rows[row["organ"]]
        assert cells[0] == organ_title(row["organ"])
        if float(row["volume_ml"]) == 0:
            assert cells[1] == say("table.absent")
            continue
        # To the precision that the page shows, thousands' commas taken off.
        assert float(cells[1].split()[0].replace(",", "")) == pytest.approx(
            float(row["volume_ml"]), rel=0.05, abs=0.006
        )
        assert cells[3].replace("−", "-").startswith(f"{float(row['mean_hu']):.0f} ±")
        assert cells[5] == row["slices"]


def check_grid(path: Path, volume: Volume) -> None:
    image = nib.load(path)
    assert image.shape == volume.geometry.shape
    assert np.allclose(image.affine, volume.affine, atol=1e-4)
    assert set(np.unique(np.asarray(image.dataobj))) >= {0, 1}


def check_dicom_seg(path: Path, mask: np.ndarray) -> None:
    import pydicom

    seg = pydicom.dcmread(path)
    assert seg.Modality == "SEG"
    assert {item.SegmentLabel for item in seg.SegmentSequence} <= {organ_title(n) for n in ("body", "bone", "fat")}
    assert int(seg.pixel_array.sum()) == int((mask > 0).sum())  # binary: one plane a segment and slice


def check_rtstruct(path: Path, mask: np.ndarray) -> None:
    import pydicom

    plan = pydicom.dcmread(path)
    assert plan.Modality == "RTSTRUCT"
    assert len(plan.ROIContourSequence) == len(np.unique(mask)) - 1
    assert all(len(roi.ContourSequence) > 0 for roi in plan.ROIContourSequence)


def check_seg_nrrd(path: Path, mask: np.ndarray) -> None:
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    assert int((SimpleITK.GetArrayFromImage(image) > 0).sum()) == int((mask > 0).sum())
    assert organ_title("bone") in [image.GetMetaData(key) for key in image.GetMetaDataKeys()]


def check_surfaces(stl: Path, glb: Path) -> None:
    import trimesh

    with zipfile.ZipFile(stl) as packed:
        assert packed.namelist()
        for name in packed.namelist():
            with packed.open(name) as file:
                assert len(trimesh.load(file, file_type="stl").faces) > 100
    assert len(trimesh.load(glb).geometry) >= 2
