"""The worker process: warm, watched, cancelled, buried. Real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from medseg.jobs.request import JobRequest, Outcome
from medseg.jobs.worker import Worker
from medseg.runtime.progress import Progress, ignore

from . import works


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(works.ACT.run, grace_s=0.5) as worker:
        yield worker


def request(folder: Path, order: str) -> JobRequest:
    source = folder / "case.nii.gz"
    source.write_text(order)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return JobRequest(source, out, "any")


def failure_of(outcome: Outcome) -> tuple[str, str]:
    assert outcome.status == "failed"
    assert outcome.failure is not None
    return outcome.failure.error, outcome.failure.message


def cancel_at_first_event(worker: Worker, asked: JobRequest) -> Outcome:
    cancelled = threading.Event()
    return worker.run(asked, lambda _: cancelled.set(), cancelled)


def test_events_arrive_in_order_and_the_process_stays_warm(worker: Worker, tmp_path: Path) -> None:
    events: list[Progress] = []
    first = worker.run(request(tmp_path, "write"), events.append)
    pid = worker.pid
    second = worker.run(request(tmp_path, "write"))
    assert [event.stage for event in events] == ["read", "segment"]
    assert events[1] == Progress("segment", 0.5, "Segmenting.")
    assert first.status == second.status == "done"
    assert first.result["findings"] == [f"write by {pid}"]
    assert second.result["calls"] == first.result["calls"] + 1
    assert worker.pid == pid


def test_errors_of_the_project_keep_class_message_and_advice(worker: Worker, tmp_path: Path) -> None:
    outcome = worker.run(request(tmp_path, "gap"))
    assert failure_of(outcome) == ("MissingSlicesError", "case.nii.gz: slices 3 to 5 are missing.")
    assert outcome.failure is not None
    assert outcome.failure.advice == "Export the complete series again; a mask across a gap would be wrong."


def test_series_to_choose_from_cross_the_border(worker: Worker, tmp_path: Path) -> None:
    outcome = worker.run(request(tmp_path, "choice"))
    assert outcome.failure is not None
    assert outcome.failure.series == ("1: thin", "2: thick")


def test_an_unexpected_error_is_named_with_its_traceback(worker: Worker, tmp_path: Path) -> None:
    outcome = worker.run(request(tmp_path, "bug"))
    assert failure_of(outcome) == ("KeyError", "case.nii.gz: unexpected KeyError: 'surprise'")
    assert outcome.failure is not None
    assert "in _bug" in outcome.failure.detail


def test_memory_that_is_refused_is_a_resource_error(worker: Worker, tmp_path: Path) -> None:
    assert failure_of(worker.run(request(tmp_path, "hungry"))) == ("ResourceError", "case.nii.gz: not enough memory.")


@pytest.mark.parametrize(
    ("order", "error", "words"),
    [
        (f"die {works.SIGKILL}", "ResourceError", "ran out of memory"),
        (f"die {works.SIGSEGV}", "WorkerError", "SIGSEGV"),
        ("leave", "WorkerError", "exit code 7"),
    ],
)
def test_a_death_is_seen_within_a_second_and_a_new_process_follows(
    worker: Worker, tmp_path: Path, order: str, error: str, words: str
) -> None:
    worker.run(request(tmp_path, "write"))
    started = time.monotonic()
    outcome = worker.run(request(tmp_path, order))
    assert time.monotonic() - started < 1.0
    assert failure_of(outcome)[0] == error
    assert failure_of(outcome)[1].startswith("case.nii.gz: the process ")
    assert words in failure_of(outcome)[1]
    assert worker.run(request(tmp_path, "write")).status == "done"


def test_the_last_words_of_a_crash_are_kept(worker: Worker, tmp_path: Path) -> None:
    outcome = worker.run(request(tmp_path, f"die {works.SIGSEGV}"))
    assert outcome.failure is not None
    assert "Segmentation fault" in outcome.failure.detail


def test_a_process_that_died_while_idle_is_replaced(worker: Worker, tmp_path: Path) -> None:
    worker.run(request(tmp_path, "write"))
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.run(request(tmp_path, "write")).status == "done"


def test_polite_cancelling_keeps_the_process(worker: Worker, tmp_path: Path) -> None:
    worker.run(request(tmp_path, "write"))
    pid = worker.pid
    started = time.monotonic()
    assert cancel_at_first_event(worker, request(tmp_path, "slow 30")).status == "cancelled"
    assert time.monotonic() - started < 0.5
    assert worker.pid == pid
    assert worker.run(request(tmp_path, "write")).status == "done"


@pytest.mark.parametrize("order", ["deaf 30", "frozen"])
def test_work_that_does_not_listen_is_ended_after_the_grace(worker: Worker, tmp_path: Path, order: str) -> None:
    worker.run(request(tmp_path, "write"))
    pid = worker.pid
    started = time.monotonic()
    assert cancel_at_first_event(worker, request(tmp_path, order)).status == "cancelled"
    assert 0.4 < time.monotonic() - started < 2.0
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_a_callback_that_raises_frees_the_process(worker: Worker, tmp_path: Path) -> None:
    def bad(_: Progress) -> None:
        raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        worker.run(request(tmp_path, "slow 30"), bad)
    assert worker.pid is None
    assert worker.run(request(tmp_path, "write"), ignore).status == "done"


def test_nothing_reaches_standard_output(tmp_path: Path) -> None:
    asked = request(tmp_path, "write")
    finished = _script(f"worker.run({_shown(asked)}); worker.close()")
    assert finished.communicate(timeout=20) == (b"", b"")
    assert (asked.out / "mask.nii.gz").read_text() == "1"


def test_no_orphan_survives_a_parent_that_is_killed(tmp_path: Path) -> None:
    asked = request(tmp_path, "deaf 30")
    parent = _script(f"worker.run({_shown(asked)}, lambda _: print(worker.pid, flush=True))")
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert _ended(child, within_s=2.0)


def _ended(process: psutil.Process, within_s: float) -> bool:
    """Whether it runs no more: gone, or a zombie where nobody buries orphans (a container without an init)."""
    deadline = time.monotonic() + within_s
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _shown(asked: JobRequest) -> str:
    return f"JobRequest(Path({str(asked.source)!r}), Path({str(asked.out)!r}), 'any')"


def _script(line: str) -> subprocess.Popen[bytes]:
    head = "from pathlib import Path; from medseg.jobs.worker import Worker; from medseg.jobs.request import JobRequest"
    code = f"{head}; worker = Worker({works.ACT.run!r}); {line}"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **path}
    )
