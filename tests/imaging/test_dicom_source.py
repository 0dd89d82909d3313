"""Headers of the slices behind a volume: found in whatever the scan came in, each at its own place or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.imaging import Geometry, read_volume
from medseg.imaging.dicom_source import dicom_files, is_dicom, read_source
from medseg.imaging.patient import read_patient
from medseg.runtime.scratch import Scratch
from tests.dicom_edits import of_class, only, tags
from tests.phantoms import phantom_volume, write_dicom_series, write_enhanced_ct, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 6.5, 7.0), orientation="PIR")
UID = "1.2.826.0.1.5"


def _zip(path: Path, *files: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, file.name)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices in an order that their names do not tell, the last one twice; not to be changed."""
    made = write_dicom_series(
        tmp_path_factory.mktemp("source") / "case", SMALL, series_uid=UID, names=lambda k: f"{k * 7 % 24:02d}.dcm"
    )
    shutil.copy(made / f"{23 * 7 % 24:02d}.dcm", made / "again.dcm")
    return made


@pytest.mark.parametrize("way", ["folder", "file", "zip"])
def test_every_slice_has_its_header(way: str, folder: Path, tmp_path: Path) -> None:
    path = {
        "folder": lambda: folder,
        "file": lambda: folder / "00.dcm",
        "zip": lambda: _zip(tmp_path / "case.zip", *folder.iterdir(), write_nifti(tmp_path / "x.nii", SMALL)),
    }[way]()
    volume = read_volume(folder)
    source = read_source(path, volume.geometry, series=UID)
    assert len(source.headers) == volume.hu.shape[2] == 24
    for k, header in enumerate(source.headers):
        place = volume.geometry.affine_lps @ [0, 0, k, 1]
        np.testing.assert_allclose([float(v) for v in header.ImagePositionPatient], place[:3], atol=1e-4)
    assert source.first is source.headers[0]


def test_what_is_dicom(folder: Path, tmp_path: Path) -> None:
    nifti = write_nifti(tmp_path / "x.nii", SMALL)
    assert is_dicom(folder)
    assert is_dicom(folder / "00.dcm")
    assert is_dicom(_zip(tmp_path / "both.zip", nifti, folder / "00.dcm"))
    assert not is_dicom(nifti)
    assert not is_dicom(_zip(tmp_path / "nifti.zip", nifti))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("voxels", "fits"), [(0.04, True), (-0.04, True), (0.06, False), (-0.06, False)])
def test_a_slice_lies_within_a_twentieth_of_a_voxel(axis: int, voxels: float, fits: bool, folder: Path) -> None:
    grid = read_volume(folder).geometry
    moved = Geometry(grid.shape, grid.affine @ (np.eye(4) + np.outer(np.eye(4)[axis], [0, 0, 0, voxels])))
    if fits:
        assert len(read_source(folder, moved, series=UID).headers) == 24
    else:
        with pytest.raises(errors.GeometryError, match="resampled"):
            read_source(folder, moved, series=UID)


@pytest.mark.parametrize("shape", [(25, 18, 20), (20, 18, 25), (20, 18, 23), (20, 19, 24)])
def test_a_grid_of_another_size_has_no_headers(shape: tuple[int, int, int], folder: Path) -> None:
    grid = Geometry(shape, read_volume(folder).affine)
    with pytest.raises(errors.GeometryError, match=r"resampled|24 of the volume's"):
        read_source(folder, grid, series=UID)


def test_frames_and_slices_that_lost_their_place_are_refused(tmp_path: Path) -> None:
    enhanced = write_enhanced_ct(tmp_path / "enhanced.dcm", SMALL, series_uid=UID)
    with pytest.raises(errors.GeometryError, match="one multi-frame object"):
        read_source(enhanced, read_volume(enhanced).geometry, series=UID)
    lost = write_dicom_series(tmp_path / "lost", SMALL, series_uid=UID, fault=only(4, tags(ImagePositionPatient=None)))
    with pytest.raises(errors.GeometryError, match=r"IM0004\.dcm has no place"):
        read_source(lost, SMALL.geometry, series=UID)


def test_whose_scan_it_is_says_the_first_picture(folder: Path, tmp_path: Path) -> None:
    disc = write_dicom_series(tmp_path / "disc", SMALL, skip=range(1, 24), names=lambda k: "DICOMDIR", patient_id="")
    fault = of_class("1.2.840.10008.1.3.10", "")  # a directory under another name
    write_dicom_series(disc, SMALL, skip=range(1, 24), names=lambda k: "A", fault=fault, patient_id="NOBODY")
    shutil.copy(folder / "00.dcm", disc / "IM")
    (disc / ".IM").write_bytes(b"DICM" * 40)
    files = [disc / "DICOMDIR", disc / "A", disc / "IM"]
    for path in (disc, folder / "00.dcm", _zip(tmp_path / "disc.zip", *files)):
        assert read_patient(path) == "PLANTED-ID-7"
    nifti = write_nifti(tmp_path / "x.nii", SMALL)
    for path in (nifti, _zip(tmp_path / "x.zip", nifti), tmp_path / "nothing"):
        assert read_patient(path) == ""


def test_what_a_killed_process_has_unpacked_is_swept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    archive = _zip(tmp_path / "case.zip", *folder.iterdir())
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with dicom_files(archive) as files:
            os.write(write, os.fsencode(files[0].path))
            time.sleep(60)
        os._exit(0)
    unpacked = Path(os.fsdecode(os.read(read, 1000)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert unpacked.is_file()
    Scratch("reading").close()  # as a reading room makes it at its start
    assert not unpacked.exists()
    with dicom_files(archive) as files:
        assert files[0].path.is_file()
    assert not files[0].path.exists()
