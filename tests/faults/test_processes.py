"""Injections 6, 7, 12, 17, 19, 21, 22: processes that hang or die, reruns, clocks, long lives, sameness."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from medseg.imaging.emit import sha256_file
from medseg.imaging.room import ReadingRoom
from medseg.jobs.batch import run_batch
from medseg.jobs.request import JobRequest, Work
from medseg.jobs.worker import Worker
from tests.packaging.checkout import ROOT, tool
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")


def test_work_that_hangs_is_given_up_and_the_next_one_runs(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "a.nii.gz", SMALL)
    (tmp_path / "out").mkdir()
    with Worker("tests.faults.works:hang", stall_s=1.0) as worker:
        outcome = worker.run(JobRequest(scan, tmp_path / "out"))
        assert outcome.failure is not None
        assert outcome.failure.error == "StalledError"
        assert "no progress" in outcome.failure.message
        worker.work, worker.stall_s = "tests.faults.works:fine", 60.0
        assert worker.run(JobRequest(scan, tmp_path / "out")).status == "done"


@pytest.mark.parametrize("deed", ["exit", "segfault", "recursion"])
def test_a_process_that_dies_once_gets_a_second_chance(deed: str, tmp_path: Path) -> None:
    scans = [write_nifti(tmp_path / f"{name}.nii.gz", SMALL) for name in ("a", "b", "c")]
    (tmp_path / "deed").write_text(deed)
    work = Work("tests.faults.works:dies_once", "tests.faults.works:identify")
    report = run_batch(scans, tmp_path / "out", work=work)
    expected = {"recursion": "failed"}.get(deed, "done")  # Python's own error is no death of the process
    assert [row.status for row in report.rows] == [expected, "done", "done"]


def test_a_process_that_dies_every_time_costs_its_study_alone(tmp_path: Path) -> None:
    scans = [write_nifti(tmp_path / f"{name}.nii.gz", SMALL) for name in ("a", "b", "c")]
    work = Work("tests.faults.works:b_dies", "tests.faults.works:identify")
    report = run_batch(scans, tmp_path / "out", work=work)
    assert [row.status for row in report.rows] == ["done", "failed", "done"]
    assert report.failed[0].error == "WorkerError"


@pytest.mark.parametrize("damage", ["truncated", "another model", "older version"])
def test_a_planted_result_is_not_believed(damage: str, tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "a.nii.gz", SMALL)
    clean = run_batch([scan], tmp_path / "out", model="tissue-hu").rows[0].mask_sha256
    mask = tmp_path / "out" / "a" / "mask.nii.gz"
    manifest = tmp_path / "out" / "manifest.json"
    if damage == "truncated":
        mask.write_bytes(mask.read_bytes()[:-20])
    else:
        field = "model_sha256" if damage == "another model" else "version"
        import json

        content = json.loads(manifest.read_text())
        content["studies"][0][field] = "0"
        manifest.write_text(json.dumps(content))
    again = run_batch([scan], tmp_path / "out", model="tissue-hu").rows[0]
    assert again.status == "done"
    assert sha256_file(mask) == clean


ELSEWHERE = {
    "a day ahead in Kiritimati": {"TZ": "Pacific/Kiritimati"},
    "no locale": {"LC_ALL": "C", "LANG": "C"},
    "Turkish": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
    "a home that is not there": {"HOME": "/nonexistent", "XDG_CACHE_HOME": "", "MEDSEG_CACHE": ""},
}


@pytest.mark.slow
@pytest.mark.parametrize("where", ELSEWHERE)
def test_clock_language_and_home_do_not_matter(where: str, tmp_path: Path) -> None:
    scan = write_dicom_series(tmp_path / "Ölçüm", SMALL)
    expected = run_batch([scan], tmp_path / "here", model="tissue-hu").rows[0].mask_sha256
    environment = {**os.environ, **ELSEWHERE[where]}
    environment = {name: value for name, value in environment.items() if value}
    command = [tool("medseg"), "segment", scan, "-o", tmp_path / "there", "--model", "tissue-hu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, umask=0o077)
    assert done.returncode == 0, done.stderr
    assert sha256_file(tmp_path / "there" / "Ölçüm" / "mask.nii.gz") == expected


@pytest.mark.slow
def test_many_scans_in_one_process_leak_nothing(tmp_path: Path) -> None:
    """500 scans, every tenth of them broken: memory, open files and temporary files stay what they were."""
    good = write_nifti(tmp_path / "good.nii.gz", SMALL)
    study = write_dicom_series(tmp_path / "study", SMALL)
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(good.read_bytes()[:-300])
    room = ReadingRoom()
    try:

        def rounds(count: int) -> None:
            for n in range(count):
                path = bad if n % 10 == 9 else study if n % 10 == 5 else good
                try:
                    room.read(path)
                except Exception:
                    assert path == bad

        rounds(100)
        ours, theirs = psutil.Process(), psutil.Process(room.pid)
        before = [(p.memory_info().rss, p.num_fds()) for p in (ours, theirs)]
        rounds(400)
        after = [(p.memory_info().rss, p.num_fds()) for p in (ours, theirs)]
        for (rss, handles), (rss_after, handles_after) in zip(before, after, strict=True):
            assert handles_after <= handles + 2
            assert rss_after - rss < 400 * 50_000  # 0.05 MB a scan
        assert room._scratch is not None
        assert list(room._scratch.path.iterdir()) == []
    finally:
        room.close()


@pytest.mark.slow
def test_same_scan_same_mask_in_every_order(tmp_path: Path) -> None:
    scans = [
        write_nifti(tmp_path / f"{seed}.nii.gz", phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), seed=seed))
        for seed in range(4)
    ]
    masks = []
    for turn in range(5):
        random.Random(turn).shuffle(scans)
        report = run_batch(scans, tmp_path / f"out{turn}", model="tissue-hu", workers=1 + turn % 2)
        masks.append({row.study: row.mask_sha256 for row in report.rows})
    assert all(mask == masks[0] for mask in masks)


@pytest.mark.slow
def test_number_of_threads_does_not_matter(tmp_path: Path) -> None:
    """The shipped network on the example, with 1, 2 and 4 threads; the precision named, which `auto` times for each."""
    example = ROOT / "medseg" / "examples" / "head_neck_ct.nii.gz"
    code = (
        "import sys, torch, medseg; from medseg.runtime.options import Options;"
        "torch.set_num_threads(int(sys.argv[1]));"
        "medseg.segment(sys.argv[2], options=Options(precision='fp32')).save(sys.argv[3])"
    )
    masks = set()
    for number, threads in enumerate(("1", "2", "4", "2", "1")):
        out = tmp_path / f"{number}"
        subprocess.run([sys.executable, "-c", code, threads, example, out], check=True)
        masks.add(sha256_file(out / "mask.nii.gz"))
    assert len(masks) == 1


def test_one_file_of_two_users_is_two_studies(tmp_path: Path) -> None:
    from app.services import Desk

    scan, users = write_nifti(tmp_path / "a.nii.gz", SMALL), ("u" * 32, "w" * 32)
    desk = Desk(tmp_path / "desk")
    try:
        studies = [desk.take_path(scan, user) for user in users]
        assert studies[0] != studies[1]
        for study, user in zip(studies, users, strict=True):
            assert desk.entry(study, user).look.wait(120)
            desk.run(study, user, "tissue-hu")
        for study, user in zip(studies, users, strict=True):
            assert desk.entry(study, user).runs[-1].job.wait(120)
        assert desk.view(studies[0], users[1]).phase == "gone"
        desk.forget(studies[0], users[0])
        assert desk.view(studies[0], users[0]).phase == "gone"
        run = desk.view(studies[1], users[1]).run(1)
        assert run is not None
        assert run.state == "done"
        assert scan.exists()
    finally:
        desk.close()


def test_threads_of_one_process_may_all_read(tmp_path: Path) -> None:
    from medseg.imaging import read_volume

    scan = write_nifti(tmp_path / "a.nii.gz", SMALL)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(read_volume(scan).sha256)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
