"""A saved result is read back with its own scan, and with no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medseg.api import segment
from medseg.errors import DataError, ScanChangedError
from medseg.imaging import read_volume
from medseg.results.load import load_result
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = write_nifti(tmp_path / "scan.nii.gz", phantom_volume())
    return segment(path, model="tissue-hu").save(tmp_path / "result")


def test_another_scan_on_the_same_grid_is_refused(folder: Path) -> None:
    path = folder.with_name("scan.nii.gz")
    first = read_volume(path)
    assert load_result(folder, first).volume is first
    other = read_volume(write_nifti(path, phantom_volume(seed=2)))
    with pytest.raises(ScanChangedError, match=r"scan: this is not the scan of which result") as refused:
        load_result(folder, other)
    assert refused.value.advice


def test_dicom_slices_count_and_not_how_they_are_packed_or_named(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "one", phantom_volume())
    folder = segment(tmp_path / "one", model="tissue-hu").save(tmp_path / "result")
    (tmp_path / "two").mkdir()
    for number, path in enumerate(sorted((tmp_path / "one").iterdir(), reverse=True)):
        (tmp_path / "two" / f"{number:03d}").write_bytes(path.read_bytes())
    assert load_result(folder, read_volume(tmp_path / "two")).mask.any()
    with pytest.raises(ScanChangedError):
        load_result(folder, read_volume(write_dicom_series(tmp_path / "three", phantom_volume(seed=2))))


def test_without_a_digest_the_grid_decides(folder: Path) -> None:
    path, volume = folder / "run.json", phantom_volume(seed=2)
    assert load_result(folder, volume).mask.any()  # made in memory
    run = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in run.items() if key != "input"}))
    assert load_result(folder, replace(volume, sha256="ab" * 32)).mask.any()
    with pytest.raises(DataError, match="another grid"):
        load_result(folder, phantom_volume((30, 30, 20)))
