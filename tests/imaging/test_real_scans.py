"""Every real CT beside the checkout is read, and the clean ones without a word."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.imaging import read_volume

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("name", "shape", "spacing_mm"),
    [
        ("crlm_ct_1004", (512, 512, 41), (0.796875, 0.796875, 5.0)),
        ("sts_001", (198, 202, 59), (0.976562, 0.976562, 3.27)),
        ("sts_003", (154, 158, 51), (0.976562, 0.976562, 3.27)),
        ("sts_005", (162, 199, 79), (0.976562, 0.976562, 3.27)),
    ],
)
def test_dicom_zips(name: str, shape: tuple[int, ...], spacing_mm: tuple[float, ...], real_data: Path) -> None:
    volume = read_volume(real_data / "dicom" / f"{name}.zip")
    assert volume.hu.shape == shape
    assert volume.spacing_mm == pytest.approx(spacing_mm, abs=1e-4)
    assert volume.geometry.orientation == "LPS"
    assert volume.hu.min() >= -1024
    assert volume.findings == ()
    assert volume.name == name


def test_small_ct_with_many_organs(real_data: Path) -> None:
    path = real_data / "multi_organ" / "example_ct_sm.nii.gz"
    volume = read_volume(path)
    image = nib.load(path)
    assert np.array_equal(volume.hu, np.maximum(image.get_fdata(dtype=np.float32), -1024))
    assert np.array_equal(volume.affine, image.affine)
    assert volume.findings == ()


def test_head_and_neck_sample(real_data: Path) -> None:
    for path in sorted((real_data / "openkbp_hn" / "validation").glob("*_ct.nii.gz"))[:5]:
        volume = read_volume(path)
        image = nib.load(path)
        assert np.array_equal(volume.hu, image.get_fdata(dtype=np.float32))
        assert volume.geometry.matches(type(volume.geometry)(image.shape, image.affine))
        assert volume.findings == ()


@pytest.mark.slow
def test_every_head_and_neck_ct(real_data: Path) -> None:
    paths = sorted((real_data / "openkbp_hn").glob("*/*_ct.nii.gz"))
    assert len(paths) == 194
    assert [path.name for path in paths if read_volume(path).findings] == []
