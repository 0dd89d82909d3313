"""A queue of segmentation jobs for a server that stays up: the page, or any other.

    queue = JobQueue(max_running=1)                     # one for the whole server process
    job = queue.submit(JobRequest(source, out, model="head-neck-oar", series=None))
    job.id                                              # 32 hex digits, random; hand it to the browser
    job.state                                           # queued | running | done | failed | cancelled
    job.stage, job.fraction, job.message                # the last progress event
    job.position                                        # 1 = next in the queue; 0 = not waiting any more
    job.finished, job.wait(timeout)                     # True when done, failed or cancelled
    job.error                                           # Failure(error, message, advice, series, detail) or None
    job.result                                          # the result folder (= request.out), or None until done
    job.findings                                        # the result's remarks, a sentence each
    job.seconds                                         # computing time until now, or altogether
    job.cancel()                                        # from any thread, at any time, any number of times
    queue.get(id)                                       # Job, or None when there is none of that id
    queue.jobs()                                        # all that are remembered, oldest first
    queue.close()                                       # cancels everything and ends the processes

Everything may be called from any thread and returns at once (but `wait` and `close`). Nothing raises for
what happens to a study: `state` and `error` say it. A job's attributes are read from one frozen `JobStatus`
(`job.status`), so take that once where several of them have to fit together. No callbacks: poll it, the
events come at most 20 times a second.

`request.out` is the result folder itself, it appears only when the result is complete. Where it existed and
was not empty, the old one is kept as `NAME.previous-1`. `source` is only read; delete uploads when the job is
`finished`. Each of the `max_running` threads has one warm process that holds the model; it starts with the
first job and ends with the server, whatever way that ends.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medseg.errors import ConfigError
from medseg.jobs.request import SEGMENT, Failure, JobRequest, Outcome
from medseg.jobs.runner import run_study
from medseg.jobs.worker import Worker
from medseg.runtime.progress import Progress

State = Literal["queued", "running", "done", "failed", "cancelled"]
_REMEMBERED = 200


@dataclass(frozen=True)
class JobStatus:
    """A moment of a job; see the module's description."""

    state: State = "queued"
    stage: str = ""
    fraction: float = 0.0
    message: str = "Waiting for the jobs before it."
    error: Failure | None = None
    result: Path | None = None
    findings: tuple[str, ...] = ()


class Job:
    """A submitted request. Made by `JobQueue.submit` alone."""

    def __init__(self, request: JobRequest, queue: JobQueue) -> None:
        self.id = secrets.token_hex(16)
        self.request = request
        self._status = JobStatus()
        self._queue = queue
        self._stop, self._end = threading.Event(), threading.Event()
        self._started_s = self._ended_s = 0.0

    def __repr__(self) -> str:
        return f"Job({self.id}, {self.request.source.name}, {self.state}, {self.fraction:.0%})"

    @property
    def status(self) -> JobStatus:
        """State, stage, fraction, message, error, result and findings of one moment."""
        return self._status

    @property
    def state(self) -> State:
        return self._status.state

    @property
    def stage(self) -> str:
        return self._status.stage

    @property
    def fraction(self) -> float:
        """Share of the job that is done, 0 ... 1."""
        return self._status.fraction

    @property
    def message(self) -> str:
        return self._status.message

    @property
    def error(self) -> Failure | None:
        return self._status.error

    @property
    def result(self) -> Path | None:
        """The complete result folder; None until the job is done."""
        return self._status.result

    @property
    def findings(self) -> tuple[str, ...]:
        return self._status.findings

    @property
    def position(self) -> int:
        """Place in the queue: 1 runs next, 0 is not waiting."""
        return self._queue.position(self)

    @property
    def finished(self) -> bool:
        return self._end.is_set()

    @property
    def seconds(self) -> float:
        """Running time until now, or altogether; 0 while queued."""
        return (self._ended_s or time.monotonic()) - self._started_s if self._started_s else 0.0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds for the end; whether it has come."""
        return self._end.wait(timeout)

    def cancel(self) -> None:
        """Stop it: at once while queued, within some two seconds while running. No effect afterwards."""
        self._stop.set()
        self._queue._withdraw(self)

    def _begin(self) -> None:
        self._started_s = time.monotonic()
        self._status = JobStatus("running", "start", 0.0, "Starting.")

    def _advance(self, event: Progress) -> None:
        self._status = replace(self._status, stage=event.stage, fraction=event.fraction, message=event.message)

    def _finish(self, outcome: Outcome) -> None:
        self._ended_s = time.monotonic()
        last = replace(self._status, state=outcome.status, error=outcome.failure, message=_farewell(outcome))
        if outcome.status == "done":
            findings = tuple(outcome.result.get("findings", ()))
            last = replace(last, fraction=1.0, result=self.request.out, findings=findings)
        self._status = last
        self._end.set()


def _farewell(outcome: Outcome) -> str:
    if outcome.failure is not None:
        return outcome.failure.message
    return "Done." if outcome.status == "done" else "Cancelled."


class JobQueue:
    """Runs requests in the order of their submission, `max_running` at a time.

    Args:
        max_running: number of processes; each wants the memory of a whole job.
        work: importable name of what a process runs, see `medseg.jobs.request.Work`.

    Raises:
        ConfigError: `max_running` is less than one.
    """

    def __init__(self, max_running: int = 1, *, work: str = SEGMENT.run) -> None:
        if max_running < 1:
            raise ConfigError(f"max_running is {max_running}.", advice="At least one job has to run.")
        self._work = work
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        names = [f"medseg-job-{number}" for number in range(max_running)]
        self._threads = [threading.Thread(target=self._serve, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def submit(self, request: JobRequest) -> Job:
        """Put a request at the end of the queue.

        Raises:
            ConfigError: the queue was closed.
        """
        job = Job(request, self)
        with self._change:
            if self._closed:
                raise ConfigError("The job queue is closed.", advice="Start the server again.")
            self._forget_oldest()
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._change.notify()
        return job

    def get(self, job_id: str) -> Job | None:
        """The job of that id, or None."""
        with self._change:
            return self._jobs.get(job_id)

    def jobs(self) -> list[Job]:
        """All jobs that are remembered, oldest first: those not finished and the last 200 others."""
        with self._change:
            return list(self._jobs.values())

    def position(self, job: Job) -> int:
        """1 for the job that runs next, 0 for one that is not waiting."""
        with self._change:
            return self._waiting.index(job) + 1 if job in self._waiting else 0

    def close(self) -> None:
        """Cancel everything, end the processes, accept no more."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for job in self.jobs():
            job.cancel()
        for thread in self._threads:
            thread.join()

    def _withdraw(self, job: Job) -> None:
        with self._change:
            if job in self._waiting:
                self._waiting.remove(job)
                job._finish(Outcome("cancelled"))

    def _forget_oldest(self) -> None:
        finished = [job.id for job in self._jobs.values() if job.finished]
        for job_id in finished[: max(0, len(finished) - _REMEMBERED)]:
            del self._jobs[job_id]

    def _serve(self) -> None:
        with Worker(self._work) as worker:
            while (job := self._next()) is not None:
                job._finish(run_study(worker, job.request, job._advance, job._stop))

    def _next(self) -> Job | None:
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            job = self._waiting.popleft()
            job._begin()
            return job
