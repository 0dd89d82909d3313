"""scripts/batch_inference.py as its users run it: its exit codes, and the real work with the model-free model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.imaging.emit import sha256_file
from medseg.jobs import JobQueue, JobRequest
from tests.phantoms import phantom_volume, write_dicom_series

ROOT = Path(__file__).parents[2]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "scripts" / "batch_inference.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(*arguments: object) -> tuple[int, str, str]:
    process = start(*arguments)
    shown, told = process.communicate(timeout=250)
    return process.returncode, shown, told


def body(path: Path, seed: int) -> Path:
    """A box of soft tissue (8 x 8 x 6 cm) in air, with noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    hu = rng.normal(-1000, 10, (60, 60, 40))
    hu[10:50, 10:50, 5:35] = rng.normal(40, 10, (40, 40, 30))
    nib.save(nib.Nifti1Image(hu.astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0])), path)
    return path


def twenty(folder: Path) -> Path:
    for number in range(17):
        body(folder / f"study{number:02}.nii.gz", number)
    (folder / "cut.nii.gz").write_bytes((folder / "study00.nii.gz").read_bytes()[:30_000])
    (folder / "text.nii").write_text("no scan at all")
    (folder / "empty.zip").write_bytes(b"")
    return folder


def test_a_wrong_command_line_is_exit_code_1(tmp_path: Path) -> None:
    assert finish(tmp_path)[0] == 1
    code, _, told = finish(tmp_path, tmp_path / "out", "--modle", "x")
    assert code == 1
    assert "--modle" in told


def test_help_names_the_exit_codes() -> None:
    code, shown, _ = finish("--help")
    assert code == 0
    assert "Exit code: 0 all fine, 3 some studies failed" in shown


def test_an_unknown_model_and_an_empty_folder_are_exit_code_1(tmp_path: Path) -> None:
    body(tmp_path / "in" / "a.nii.gz", 0)
    code, _, told = finish(tmp_path / "in", tmp_path / "out", "--model", "nothing")
    assert (code, told.startswith("Error: No model named 'nothing'")) == (1, True)
    (tmp_path / "none").mkdir()
    assert finish(tmp_path / "none", tmp_path / "out", "--model", "tissue-hu")[0] == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_names_that_are_no_utf8_end_no_batch(tmp_path: Path) -> None:
    """As old archives and unpacked zips bring them: the scan is computed, the damaged one named, all others done."""
    inputs, out = tmp_path / "in", tmp_path / "out"
    good = body(inputs / "good.nii.gz", 0)
    odd, broken, study = (
        Path(os.fsdecode(os.fsencode(inputs) + end)) for end in (b"/a\xe9.nii.gz", b"/b\xe9.nii", b"/c\xe9")
    )
    good.with_name("odd.nii.gz").write_bytes(good.read_bytes())
    good.with_name("odd.nii.gz").rename(odd)
    broken.write_bytes(b"no scan at all")
    write_dicom_series(study, phantom_volume((30, 26, 24), (5.0, 5.0, 5.5), orientation="LPS"))
    code, shown, told = finish(inputs, out, "--model", "tissue-hu")
    assert (code, "Traceback" in told) == (3, False), told
    rows = {row["study"]: row for row in json.loads((out / "manifest.json").read_text("utf-8"))["studies"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a_xe9": "done", "b_xe9": "failed", "c_xe9": "done", "good": "done",
    }  # fmt: skip
    assert rows["b_xe9"]["message"].startswith("b\\xe9.nii: ")
    assert json.loads((out / "a_xe9" / "run.json").read_text("utf-8"))["study"] == "a\\xe9"
    assert "b\\xe9.nii" in shown
    code, shown, _ = finish(inputs, out, "--model", "tissue-hu")
    assert (code, shown.splitlines()[0]) == (3, "0 done, 3 unchanged, 1 failed.")


@pytest.mark.slow
def test_twenty_studies_three_broken_killed_and_run_again(tmp_path: Path) -> None:
    inputs, out = twenty(tmp_path / "in"), tmp_path / "out"
    first = start(inputs, out, "--model", "tissue-hu")
    while len(list(out.glob("study*/mask.nii.gz"))) < 5:
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = {path: (path.stat().st_mtime_ns, sha256_file(path)) for path in out.glob("study*/*")}
    code, shown, told = finish(inputs, out, "--model", "tissue-hu")
    assert code == 3
    assert {path: (path.stat().st_mtime_ns, sha256_file(path)) for path in before} == before
    rows = {row["study"]: row for row in json.loads((out / "manifest.json").read_text())["studies"]}
    failed = {name: row["error"] for name, row in rows.items() if row["status"] == "failed"}
    assert failed == {"cut": "TruncatedFileError", "empty": "UnknownFormatError", "text": "UnknownFormatError"}
    assert len(list(out.glob("study*/mask.nii.gz"))) == 17
    assert all(name in shown for name in ("cut.nii.gz", "empty.zip", "text.nii"))
    assert "unchanged  study00" in told


@pytest.mark.slow
def test_the_queue_does_the_real_work_and_the_second_job_is_warm(tmp_path: Path) -> None:
    queue = JobQueue()
    jobs = [
        queue.submit(
            JobRequest(body(tmp_path / f"{number}.nii.gz", number), tmp_path / "out" / str(number), "tissue-hu")
        )
        for number in range(2)
    ]
    assert all(job.wait(120) for job in jobs)
    queue.close()
    assert [job.state for job in jobs] == ["done", "done"]
    assert jobs[1].seconds < jobs[0].seconds
    mask = np.asarray(nib.load(tmp_path / "out" / "1" / "mask.nii.gz").dataobj)
    assert mask.shape == (60, 60, 40)
    assert mask[30, 30, 20] > 0
    assert not mask[:8].any()
