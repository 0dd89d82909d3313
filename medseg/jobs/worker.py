"""The parent's side of a worker: one warm process that segments study after study.

The process imports torch and loads the model once. It is a plain subprocess rather than
`multiprocessing`'s spawn, which imports the parent's main module again in the child: under
Streamlit that would run the page a second time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from medseg.errors import ResourceError, StalledError, WorkerError
from medseg.jobs.child import MEMORY_ADVICE
from medseg.jobs.request import SEGMENT, Failure, JobRequest, Outcome
from medseg.runtime.progress import Progress, ProgressCallback, ignore

_POLL_S = 0.1
_LEAVE_S = 0.3
_LAST_WORDS = 4000
STALL_S = 1800.0
_ENTRY = "from medseg.jobs.child import main; main()"


class Worker:
    """A child process that runs one request at a time and stays warm between them.

    Not thread-safe: every worker belongs to one thread.

    Args:
        work: importable name of what to run, see `medseg.jobs.request.Work`.
        grace_s: how long a cancelled request may take to stop by itself before the process is killed.
        threads: number of computing threads of the process; None leaves the choice to the libraries.
        stall_s: how long it may be silent; then it hangs, and is killed.
    """

    def __init__(
        self, work: str = SEGMENT.run, *, grace_s: float = 1.0, threads: int | None = None, stall_s: float = STALL_S
    ) -> None:
        self.work, self.grace_s, self.threads, self.stall_s = work, grace_s, threads, stall_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._accepted = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker

    @property
    def pid(self) -> int | None:
        """Process id of the living child, or None."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and alive else None

    def run(
        self,
        request: JobRequest,
        progress: ProgressCallback = ignore,
        cancelled: threading.Event | None = None,
    ) -> Outcome:
        """Run one request to its end; never raises for what happens to the study.

        Args:
            request: the study; its `out` has to exist.
            progress: called in this thread.
            cancelled: set it from any thread to stop.
        """
        started = time.monotonic()
        over = False
        try:
            event = self._attempt(request, progress, cancelled or threading.Event())
            over = True
        finally:
            # Only an exception here (the callback's, Ctrl-C) leaves the child busy with a study nobody wants.
            if not over:
                self.close()
        return self._outcome(event, request, time.monotonic() - started)

    def close(self) -> None:
        """End the process now; what it was doing is lost."""
        if self._pipe is not None:
            self._pipe.close()  # which the child takes as its end, unless it hangs
            self._pipe = None
        if self._process is not None:
            try:
                self._process.wait(_LEAVE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._log.close()

    def _attempt(self, request: JobRequest, progress: ProgressCallback, cancelled: threading.Event) -> dict[str, Any]:
        warm = self.pid is not None
        self._accepted = False
        event = self._follow(progress, cancelled) if self._send(request) else {"kind": "died"}
        if event["kind"] == "died" and warm and not self._accepted:
            # It died while it was idle: that is not this study's fault.
            self.close()
            return self._attempt(request, progress, cancelled)
        return event

    def _send(self, request: JobRequest) -> bool:
        if self.pid is None:
            self.close()
            self._start()
        self._log.seek(0)
        self._log.truncate()  # the child shares this open file and goes on writing at its start
        paths = {"source": str(request.source), "out": str(request.out)}
        wishes = {"model": request.model, "series": request.series, "options": asdict(request.options)}
        return self._tell({"kind": "run", "work": self.work, **wishes, **paths})

    def _tell(self, message: dict[str, Any]) -> bool:
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(json.dumps(message).encode())
        except OSError:
            return False
        return True

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _ENTRY, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                env=self._environment(),
            )

    def _environment(self) -> dict[str, str]:
        # The child finds what the parent finds, and (-P) nothing that happens to lie in the current folder.
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        threads = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        return {**os.environ, "PYTHONPATH": path, **threads}

    def _follow(self, progress: ProgressCallback, cancelled: threading.Event) -> dict[str, Any]:
        """Pass events on until the last one; a dead child closes the pipe, so its end is seen at once."""
        deadline: float | None = None
        heard_at = time.monotonic()
        while True:
            if deadline is None and cancelled.is_set():
                deadline = time.monotonic() + self.grace_s
                self._tell({"kind": "cancel"})
            if deadline is not None and time.monotonic() > deadline:
                self.close()
                return {"kind": "cancelled"}
            event = self._receive()
            if event is None:
                if time.monotonic() - heard_at > self.stall_s:
                    self.close()
                    return {"kind": "hung"}
                continue
            heard_at = time.monotonic()
            if event["kind"] == "accepted":
                self._accepted = True
            elif event["kind"] == "progress":
                progress(Progress(event["stage"], event["fraction"], event["message"]))
            else:
                return event

    def _receive(self) -> dict[str, Any] | None:
        assert self._pipe is not None
        try:
            if self._pipe.poll(_POLL_S):
                event: dict[str, Any] = json.loads(self._pipe.recv_bytes())
                return event
        except (EOFError, OSError):
            return {"kind": "died"}
        return None

    def _outcome(self, event: dict[str, Any], request: JobRequest, seconds: float) -> Outcome:
        if event["kind"] == "done":
            return Outcome("done", event["result"], None, seconds)
        if event["kind"] == "cancelled":
            return Outcome("cancelled", seconds=seconds)
        if event["kind"] == "failed":
            event["failure"]["series"] = tuple(event["failure"]["series"])
            return Outcome("failed", failure=Failure(**event["failure"]), seconds=seconds)
        if event["kind"] == "hung":
            reason = f"it made no progress for {self.stall_s / 60:.0f} minutes and was given up."
            hung = Failure.of(StalledError(f"{request.source.name}: {reason}"), self._last_words())
            return Outcome("failed", failure=hung, seconds=seconds)
        return Outcome("failed", failure=self._obituary(request.source), seconds=seconds)

    def _obituary(self, source: Path) -> Failure:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == -signal.SIGKILL:
            reason = "the process was killed, most often because the computer ran out of memory."
            return Failure.of(ResourceError(f"{source.name}: {reason}", advice=MEMORY_ADVICE), self._last_words())
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        reason = f"the process ended unexpectedly ({how})."
        return Failure.of(WorkerError(f"{source.name}: {reason}"), self._last_words())

    def _last_words(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LAST_WORDS))
        return self._log.read().decode(errors="replace")
