"""A scan as the server shows it: the same voxels at the same places, whatever way they were stored."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from app.scans import Scan, read_scan
from app.work.look import look
from medseg.errors import SeriesChoiceError
from medseg.imaging.volume import Geometry, Volume, reorient
from medseg.jobs.request import JobRequest
from medseg.runtime.progress import ignore
from tests.phantoms import PLANTED_NAME, phantom_volume, write_dicom_series, write_nifti

ORIGIN = (7.0, -11.0, 23.0)
LEFT_SPHERE, RIGHT_BOX, BACK_ROD = (-32.0, 8.0, 14.0), (30.0, -6.0, -12.0), (0.0, -34.0, 0.0)


def looked_at(folder: Path, volume: Volume) -> Scan:
    path, out = write_nifti(folder / "scan.nii.gz", volume), folder / "out"
    out.mkdir()
    look(JobRequest(path, out), ignore)
    scan = read_scan(out)
    assert scan is not None
    return scan


def turned(volume: Volume) -> Volume:
    """The same array, lying askew."""
    angle = np.deg2rad(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = volume.affine.copy()
    affine[:3] = turn @ affine[:3]
    return Volume(volume.hu, Geometry(volume.geometry.shape, affine))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL", "ILA"])
def test_values_at_a_place_do_not_depend_on_how_the_scan_is_stored(tmp_path: Path, orientation: str) -> None:
    volume = phantom_volume(orientation=orientation, noise_hu=0)
    scan = looked_at(tmp_path, volume)
    assert (scan.hu() == reorient(volume.hu, volume.geometry.to_canonical)).all()
    assert scan.hu().flags.f_contiguous
    for relative, hu in ((LEFT_SPHERE, 120), (RIGHT_BOX, -90), (BACK_ROD, 700)):
        voxel = scan.voxel_at(tuple(np.add(ORIGIN, relative)))
        assert voxel is not None
        assert scan.hu()[voxel] == hu


def test_an_oblique_scan_keeps_its_places(tmp_path: Path) -> None:
    volume = turned(phantom_volume(noise_hu=0))
    scan = looked_at(tmp_path, volume)
    assert np.allclose(scan.affine, volume.affine, atol=1e-4)
    for index in ((3, 4, 5), (40, 11, 30)):
        assert scan.voxel_at(tuple((volume.affine @ [*index, 1])[:3])) == index


def test_beyond_the_scan_there_is_nothing(tmp_path: Path) -> None:
    scan = looked_at(tmp_path, phantom_volume())
    corner = scan.affine @ [*(np.array(scan.shape) - 0.51), 1]
    assert scan.voxel_at(tuple(corner[:3])) == tuple(n - 1 for n in scan.shape)
    corner = scan.affine @ [*(np.array(scan.shape) - 0.49), 1]
    assert scan.voxel_at(tuple(corner[:3])) is None
    assert scan.voxel_at((-1e9, 0, 0)) is None


def test_half_floats_are_the_hu_slice_by_slice(tmp_path: Path) -> None:
    scan = looked_at(tmp_path, phantom_volume())
    sent = np.frombuffer(b"".join(scan.half_floats()), "<f2").reshape(scan.shape, order="F")
    assert (sent == scan.hu()).all()


@pytest.mark.parametrize("side", [16, 48, 200])
def test_the_small_copy_fills_the_same_space(tmp_path: Path, side: int) -> None:
    scan = looked_at(tmp_path, turned(phantom_volume(noise_hu=0)))
    image = nib.Nifti1Image.from_bytes(scan.small_copy(side))
    small = np.asarray(image.dataobj)
    assert max(small.shape) <= side
    for corner in (np.zeros(3), np.ones(3)):
        here, there = (np.array(shape) * corner - 0.5 for shape in (small.shape, scan.shape))
        assert np.allclose(image.affine @ [*here, 1], scan.affine @ [*there, 1], atol=1e-3)
    voxel = np.rint(np.linalg.inv(image.affine) @ [*(scan.affine @ [10, 20, 15, 1])[:3], 1])[:3].astype(int)
    assert small[tuple(voxel)] == scan.hu()[10, 20, 15]
    assert image.get_data_dtype() == np.int16


def test_the_first_picture_shows_three_planes(ready: SimpleNamespace, tmp_path: Path) -> None:
    look(JobRequest(ready.path, tmp_path, extra={"first": str(tmp_path / "first.png")}), ignore)
    picture = np.asarray(Image.open(tmp_path / "first.png").convert("L")).astype(float)
    third = picture.shape[1] // 3
    assert all(picture[:, third * n : third * (n + 1)].std() > 20 for n in range(3))


def test_what_is_kept_of_a_dicom_scan_names_nobody(tmp_path: Path) -> None:
    folder, out = write_dicom_series(tmp_path / "series", phantom_volume()), tmp_path / "out"
    out.mkdir()
    look(JobRequest(folder, out), ignore)
    facts = (out / "scan.json").read_text("utf-8")
    assert not any(part in facts for part in (PLANTED_NAME, "DOE", "PLANTED"))
    assert json.loads(facts)["format"] == "dicom"


def test_several_series_are_a_choice(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "study", phantom_volume())
    write_dicom_series(tmp_path / "study", phantom_volume((30, 30, 20)), names=lambda k: f"B{k}.dcm")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(SeriesChoiceError):
        look(JobRequest(tmp_path / "study", out), ignore)
    look(JobRequest(tmp_path / "study", out, series="1"), ignore)
    assert read_scan(out) is not None


def test_there_is_no_scan_before_it_was_read(tmp_path: Path) -> None:
    assert read_scan(tmp_path) is None
