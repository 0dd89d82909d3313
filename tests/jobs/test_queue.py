"""The queue that the page submits to."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from medseg.errors import ConfigError
from medseg.jobs import Job, JobQueue, JobRequest

from . import works


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    queue = JobQueue(work=works.ACT.run)
    yield queue
    queue.close()


def submit(queue: JobQueue, folder: Path, order: str, name: str = "case") -> Job:
    source = folder / f"{name}.nii.gz"
    source.write_text(order)
    return queue.submit(JobRequest(source, folder / "results" / name, "any"))


def until_running(job: Job) -> None:
    end = time.monotonic() + 10
    while job.stage != "segment" and time.monotonic() < end:
        time.sleep(0.01)
    assert job.state == "running"


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("results/.*")]


def test_a_job_runs_to_its_result_folder(queue: JobQueue, tmp_path: Path) -> None:
    job = submit(queue, tmp_path, "write")
    assert re.fullmatch(r"[0-9a-f]{32}", job.id)
    assert queue.get(job.id) is job
    assert job.wait(60)
    assert (job.state, job.fraction, job.message, job.error) == ("done", 1.0, "Done.", None)
    assert job.result == tmp_path / "results" / "case"
    assert sorted(path.name for path in job.result.iterdir()) == ["mask.nii.gz", "run.json"]
    assert job.findings[0].startswith("write by ")
    assert 0 < job.seconds < 10
    assert hidden(tmp_path) == []


def test_a_failed_job_says_why_and_leaves_nothing(queue: JobQueue, tmp_path: Path) -> None:
    job = submit(queue, tmp_path, "choice")
    assert job.wait(60)
    assert (job.state, job.result) == ("failed", None)
    assert job.error is not None
    assert job.error.error == "SeriesChoiceError"
    assert job.error.series == ("1: thin", "2: thick")
    assert job.message == job.error.message
    assert list((tmp_path / "results").iterdir()) == []


def test_positions_count_those_ahead_and_order_is_kept(queue: JobQueue, tmp_path: Path) -> None:
    running = submit(queue, tmp_path, "slow 30", "a")
    until_running(running)
    second, third = submit(queue, tmp_path, "write", "b"), submit(queue, tmp_path, "write", "c")
    assert [job.position for job in (running, second, third)] == [0, 1, 2]
    assert [job.state for job in (second, third)] == ["queued", "queued"]
    second.cancel()
    assert (second.state, second.finished, second.seconds) == ("cancelled", True, 0.0)
    assert third.position == 1
    running.cancel()
    assert third.wait(60)
    assert third.state == "done"
    assert queue.jobs() == [running, second, third]


def test_cancel_while_running_leaves_nothing(queue: JobQueue, tmp_path: Path) -> None:
    job = submit(queue, tmp_path, "slow 30")
    until_running(job)
    job.cancel()
    job.cancel()
    assert job.wait(1)
    assert (job.state, job.message, job.result) == ("cancelled", "Cancelled.", None)
    assert list((tmp_path / "results").iterdir()) == []


def test_a_job_whose_process_dies_fails_and_the_next_one_runs(queue: JobQueue, tmp_path: Path) -> None:
    dead = submit(queue, tmp_path, f"die {works.SIGKILL}", "dead")
    alive = submit(queue, tmp_path, "write", "alive")
    assert alive.wait(60)
    assert dead.state == "failed"
    assert dead.error is not None
    assert dead.error.error == "ResourceError"
    assert alive.state == "done"


def test_an_earlier_result_with_additions_is_kept(queue: JobQueue, tmp_path: Path) -> None:
    assert submit(queue, tmp_path, "write old").wait(60)
    result = tmp_path / "results" / "case"
    (result / "corrected by hand.nii.gz").write_text("precious")
    assert submit(queue, tmp_path, "write new").wait(60)
    previous = tmp_path / "results" / "case.previous-1"
    assert (previous / "corrected by hand.nii.gz").read_text() == "precious"
    assert (previous / "mask.nii.gz").read_text() == "old"
    assert (result / "mask.nii.gz").read_text() == "new"


def test_a_folder_that_is_no_result_is_not_touched(queue: JobQueue, tmp_path: Path) -> None:
    (tmp_path / "results" / "case").mkdir(parents=True)
    (tmp_path / "results" / "case" / "letters.txt").write_text("private")
    job = submit(queue, tmp_path, "write")
    assert job.wait(60)
    assert job.error is not None
    assert job.error.message == f"{tmp_path}/results/case exists and is no result of medseg."
    assert [path.name for path in tmp_path.glob("results/*/*")] == ["letters.txt"]


def test_a_result_folder_that_cannot_be_made_fails_the_job(queue: JobQueue, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    job = submit(queue, tmp_path, "write")
    assert job.wait(60)
    assert job.error is not None
    assert job.error.error == "OutputError"


def test_two_run_at_once_when_asked(tmp_path: Path) -> None:
    queue = JobQueue(2, work=works.ACT.run)
    jobs = [submit(queue, tmp_path, "slow 30", name) for name in "ab"]
    for job in jobs:
        until_running(job)
    queue.close()
    assert [job.state for job in jobs] == ["cancelled", "cancelled"]


def test_closing_ends_the_processes_and_refuses_more(tmp_path: Path) -> None:
    queue = JobQueue(work=works.ACT.run)
    job = submit(queue, tmp_path, "write")
    assert job.wait(60)
    child = psutil.Process(int(job.findings[0].split()[-1]))
    queue.close()
    assert not child.is_running()
    with pytest.raises(ConfigError, match="closed"):
        submit(queue, tmp_path, "write")


def test_submitting_from_many_threads_loses_nothing(queue: JobQueue, tmp_path: Path) -> None:
    jobs: list[Job] = []
    threads = [
        threading.Thread(target=lambda name: jobs.append(submit(queue, tmp_path, "write", name)), args=(f"n{number}",))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(job.wait(20) for job in jobs)
    assert {job.state for job in jobs} == {"done"}
    assert len({job.id for job in jobs}) == 20


def test_a_queue_without_places_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_running is 0"):
        JobQueue(0)
