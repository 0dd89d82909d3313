"""Which files a scan is read from, and that none of them may change meanwhile."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from medseg import errors
from medseg.imaging import intake
from medseg.imaging.scan_files import companions, own_files
from medseg.imaging.volume import Volume
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")


def _detached(folder: Path) -> Path:
    """A header that names its voxels, which no extension tells."""
    voxels = SMALL.hu.astype("<i2").tobytes(order="F")
    (folder / "voxels.raw.gz").write_bytes(gzip.compress(voxels))
    header = folder / "case.nhdr"
    header.write_text(
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 24 20 18\n"
        "space directions: (7,0,0) (0,7,0) (0,0,7.5)\nspace origin: (0,0,0)\nendian: little\nencoding: gzip\n"
        "data file: voxels.raw.gz\n"
    )
    return header


def test_a_header_is_read_with_its_voxels(tmp_path: Path) -> None:
    header = _detached(tmp_path)
    (tmp_path / "case.txt").write_text("notes")
    assert companions(header) == [tmp_path / "voxels.raw.gz"]
    header.write_text(header.read_text().replace("voxels.raw.gz", "../elsewhere"))
    assert companions(header) == []


def test_a_slice_is_read_with_all_slices_beside_it_and_nothing_else(tmp_path: Path) -> None:
    study = write_dicom_series(tmp_path / "study", SMALL)
    for name in ("report.pdf", ".IM.dcm", "manifest.json"):
        (study / name).write_text("no slice")
    (study / "late.dcm").write_bytes(b"")  # its bytes are still to come
    os.mkfifo(study / "pipe")
    beside = sorted(path.name for path in companions(study / "IM0001.dcm"))
    assert beside == sorted({"late.dcm", *(path.name for path in study.glob("IM*.dcm"))} - {"IM0001.dcm"})


def test_a_folder_and_other_files_stand_for_themselves(tmp_path: Path) -> None:
    study = write_dicom_series(tmp_path / "study" / "deep", SMALL)
    scan = write_nifti(tmp_path / "study" / "scan.nii", SMALL)
    assert set(own_files(tmp_path / "study")) == {scan, *study.iterdir()}
    assert companions(tmp_path / "study") == companions(scan) == []
    assert list(own_files(scan)) == [scan]
    assert list(own_files(tmp_path / "nothing")) == companions(tmp_path / "nothing") == []


@pytest.mark.parametrize("what", ["slice", "voxels", "deep"])
def test_what_changes_beside_or_below_while_it_is_read(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_dicom_series(tmp_path / "study" / "deep", SMALL)
    slice_, folder, header = study / "IM0001.dcm", study.parent, _detached(tmp_path)
    path, late = {
        "slice": (slice_, study / "late"),
        "voxels": (header, tmp_path / "voxels.raw.gz"),
        "deep": (folder, study / "late"),
    }[what]
    read = intake._read

    def slow(*asked: object) -> Volume:
        volume = read(*asked)  # type: ignore[arg-type]
        late.write_bytes(slice_.read_bytes())
        return volume

    monkeypatch.setattr(intake, "_read", slow)
    with pytest.raises(errors.TruncatedFileError, match="changed while it was read"):
        intake.read_here(path)
    if what != "voxels":
        late.unlink()
        monkeypatch.setattr(intake, "_read", read)
        assert intake.read_here(path).geometry.shape == SMALL.geometry.shape
