"""The poison batch: all bad inputs in one run with twenty good scans, none of which may suffer."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from medseg.imaging.emit import sha256_file
from medseg.jobs.batch import run_batch
from medseg.jobs.report import BatchReport
from tests.phantoms import PLANTED_NAME, phantom_volume, write_dicom_series, write_nifti
from tests.poison.base import SHAPE, SPACING_MM, Case
from tests.poison.catalogue import catalogue

GOOD = 20


def _good(folder: Path) -> list[Path]:
    """Twenty scans with nothing wrong, half of them NIfTI and half DICOM."""
    folder.mkdir()
    made = []
    for seed in range(GOOD):
        volume = phantom_volume(SHAPE, SPACING_MM, orientation="LPS", seed=100 + seed)
        path = folder / f"good-{seed:02d}"
        made.append(write_dicom_series(path, volume) if seed % 2 else write_nifti(path.with_suffix(".nii.gz"), volume))
    return made


def _poison(folder: Path) -> dict[Path, Case]:
    """One input for each case that is refused or warned of; those that need a choice are asked without it."""
    made: dict[Path, Case] = {}
    for number, case in enumerate(catalogue()):
        if case.expect.verdict != "fine":
            home = folder / f"{number:03d}"
            home.mkdir(parents=True)
            made[case.make(home)] = case
    return made


def _run(studies: list[Path], out: Path) -> BatchReport:
    return run_batch(studies, out, model="tissue-hu")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_poison_batch_leaves_good_scans_alone(tmp_path: Path) -> None:
    good, poison = _good(tmp_path / "good"), _poison(tmp_path / "bad")
    clean = {row.path: row for row in _run(good, tmp_path / "clean").rows}
    # The one finding is the model's word that it works by rules.
    assert {(row.status, len(row.findings)) for row in clean.values()} == {("done", 1)}

    studies = [*good, *poison]
    random.Random(11).shuffle(studies)
    report = _run(studies, tmp_path / "out")
    assert len(report.rows) == len(studies)
    assert report.exit_code == 3
    rows = {row.path: row for row in report.rows}
    for scan in good:
        mask = tmp_path / "out" / rows[str(scan)].study / "mask.nii.gz"
        assert rows[str(scan)].findings == clean[str(scan)].findings
        assert sha256_file(mask) == clean[str(scan)].mask_sha256
    for source, case in poison.items():
        row = rows[str(source)]
        if case.expect.verdict == "refused":
            assert (row.status, row.error in case.expect.errors or "InputError" in case.expect.errors) == (
                "failed",
                True,
            ), case.id
            assert row.message, case.id
            assert row.advice, case.id
        else:
            assert row.status == "done", case.id
            assert row.findings, case.id
    told = (tmp_path / "out" / "manifest.json").read_text() + (tmp_path / "out" / "manifest.csv").read_text()
    assert PLANTED_NAME not in told
    shutil.rmtree(tmp_path / "bad")
