"""The child's side of a worker: takes requests from the pipe, answers with events, outlives nobody.

Messages are JSON, one a message. In: `{"kind": "run", "work"}` with the fields of a `JobRequest`, and
`{"kind": "cancel"}`. Out: `accepted`, `progress`, then one of `done`, `failed`, `cancelled`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from medseg.errors import Cancelled, MedsegError, ResourceError, showable
from medseg.imaging.room import leave
from medseg.jobs.request import Failure, JobRequest
from medseg.runtime.options import Options
from medseg.runtime.progress import Progress

_PARENT_CHECK_S = 1.0
_EVENT_INTERVAL_S = 0.05


def serve(pipe: Connection) -> None:
    """Answer requests until the pipe closes."""
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(pipe, requests, stop), daemon=True).start()
    while True:
        message = requests.get()
        pipe.send_bytes(_encode({"kind": "accepted"}))
        pipe.send_bytes(_encode(_answer(message, _Reporter(pipe, stop))))


def _listen(pipe: Connection, requests: queue.SimpleQueue[dict[str, Any]], stop: threading.Event) -> None:
    """Receive while the main thread computes, and end the process when the parent is gone.

    PR_SET_PDEATHSIG would not do: it fires when the *thread* that made the child ends.
    """
    parent = os.getppid()
    with contextlib.suppress(EOFError, OSError):
        while os.getppid() == parent:
            if pipe.poll(_PARENT_CHECK_S):
                _sort(json.loads(pipe.recv_bytes()), requests, stop)
    leave()
    os._exit(0)


def _sort(message: dict[str, Any], requests: queue.SimpleQueue[dict[str, Any]], stop: threading.Event) -> None:
    if message["kind"] == "cancel":
        stop.set()
        return
    # Cleared here and not when the run begins, so that a cancel on the heels of its request is not lost.
    stop.clear()
    requests.put(message)


class _Reporter:
    """The progress callback of a run: sends events, and raises where the user wants to stop."""

    def __init__(self, pipe: Connection, stop: threading.Event) -> None:
        self.pipe, self.stop = pipe, stop
        self._stage, self._sent_at = "", 0.0

    def __call__(self, progress: Progress) -> None:
        if self.stop.is_set():
            raise Cancelled
        now = time.monotonic()
        if progress.stage == self._stage and now - self._sent_at < _EVENT_INTERVAL_S:
            return
        self._stage, self._sent_at = progress.stage, now
        self.pipe.send_bytes(_encode({"kind": "progress", **asdict(progress)}))


def _answer(message: dict[str, Any], report: _Reporter) -> dict[str, Any]:
    request = _request(message)
    try:
        return {"kind": "done", "result": resolve(message["work"])(request, report)}
    except Cancelled:
        return {"kind": "cancelled"}
    except Exception as error:
        return {"kind": "failed", "failure": asdict(describe(error, request.source))}


def _request(message: dict[str, Any]) -> JobRequest:
    return JobRequest(
        Path(message["source"]),
        Path(message["out"]),
        message["model"],
        message["series"],
        Options.from_json(message["options"]),
        tuple(message["formats"]),
        message["extra"],
    )


def resolve(name: str) -> Any:
    """The function that 'package.module:function' names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def describe(error: Exception, source: Path) -> Failure:
    """What to tell the user about an exception; unexpected ones are named as such."""
    detail = "".join(traceback.format_exception(error))
    if isinstance(error, MedsegError):
        return Failure.of(error, detail)
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        return Failure.of(ResourceError(f"{source.name}: not enough memory.", advice=MEMORY_ADVICE), detail)
    message = showable(f"{source.name}: unexpected {type(error).__name__}: {error}")
    return Failure(type(error).__name__, message, "This is a fault of the program: please report it.", (), detail)


MEMORY_ADVICE = "Close other programs, run fewer studies at once, or use a computer with more memory."


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def main() -> None:
    """Entry of the process; its one argument is the file descriptor of the pipe."""
    # Ctrl-C reaches the whole foreground group; the parent decides what becomes of the child.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    with contextlib.suppress(BrokenPipeError):
        serve(Connection(int(sys.argv[1])))
