"""Label maps: written on the scan's grid, verified, the same bytes every time."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg import errors
from medseg.imaging import read_volume
from medseg.imaging.nifti import read_label_map, write_label_map
from tests.phantoms import ORIENTATIONS, phantom_labels, phantom_volume, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
LABELS = phantom_labels(SMALL)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_grid_and_labels_come_back(orientation: str, tmp_path: Path) -> None:
    scan = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation=orientation)
    volume = read_volume(write_nifti(tmp_path / "scan.nii.gz", scan))
    labels = phantom_labels(volume)
    path = write_label_map(tmp_path / "deep" / "mask.nii.gz", labels, volume.geometry)
    again, geometry = read_label_map(path)
    assert again.dtype == np.uint8
    assert np.array_equal(again, labels)
    assert geometry.matches(volume.geometry, 1e-4)
    image = nib.load(path)
    assert np.array_equal(image.affine, nib.load(tmp_path / "scan.nii.gz").affine)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert struct.unpack_from("<ff", gzip.decompress(path.read_bytes()), 112) == (1.0, 0.0)


def test_bytes_are_deterministic_and_hold_no_text(tmp_path: Path) -> None:
    one = write_label_map(tmp_path / "one.nii.gz", LABELS, SMALL.geometry).read_bytes()
    two = write_label_map(tmp_path / "two.nii.gz", np.asfortranarray(LABELS), SMALL.geometry).read_bytes()
    assert one == two
    header = gzip.decompress(one)[:352]
    assert header[148:252].strip(b"\0") == b""
    assert header[328:344].strip(b"\0") == b""


ONE_TOO_LARGE = np.where(np.arange(LABELS.size).reshape(LABELS.shape) == 5, 256, LABELS.astype(int))


@pytest.mark.parametrize("labels", [LABELS[1:], LABELS.astype(int) - 1, LABELS.astype(int) + 256, ONE_TOO_LARGE])
def test_what_does_not_fit_is_refused(labels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(errors.OutputError):
        write_label_map(tmp_path / "mask.nii.gz", labels, SMALL.geometry)
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_no_labels(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", SMALL)
    with pytest.raises(errors.DataError, match=r"a\.nii"):
        read_label_map(path)


def test_many_labels_and_float_storage(tmp_path: Path) -> None:
    image = nib.Nifti1Image(LABELS.astype(np.float32) * 100, SMALL.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "many.nii.gz")
    labels, _ = read_label_map(tmp_path / "many.nii.gz")
    assert labels.dtype == np.int32
    assert labels.max() == 300
