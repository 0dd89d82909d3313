"""A pytest plugin: scans are read in the tests' own process, and it is kept which test reaches which line.

The reading room is a process of its own, in which neither a tracer nor a mutant of the parent's would be; all else of
it happens as there: the same messages, the same refusals, the same class of error for whatever breaks.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HOME = Path.cwd()


def read_in_this_process(room: Any, path: Path, series: str | None = None, accept: Any = None) -> Any:
    """What `ReadingRoom.read` does, without its process."""
    from medseg.errors import MedsegError
    from medseg.imaging import room as parent
    from medseg.imaging import room_child as child

    request = {"path": os.path.abspath(path), "series": series, "accept": accept.reason if accept else ""}
    handles: list[int] = []
    warm_up(room)
    with room._lock, warnings.catch_warnings(), _temporary_files_in(room._scratch):  # one scan at a time, as there
        warnings.simplefilter("ignore")  # as in the room, where nobody hears them
        try:
            handle, answer = child._read(request)
            handles.append(handle)
        except MedsegError as error:
            answer = child._refusal(error)
        except MemoryError:
            answer = {"kind": "memory"}
        except Exception as error:
            answer = {"kind": "broken", "what": type(error).__name__}
    return parent._volume(path, json.loads(json.dumps(answer)), handles)


def warm_up(room: Any) -> None:
    """The room's folder is there, as if its process ran."""
    from medseg.runtime.scratch import Scratch

    room._scratch = room._scratch or Scratch("reading")


@contextmanager
def _temporary_files_in(scratch: Any) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, str(scratch.path)
    try:
        yield
    finally:
        tempfile.tempdir = before
        scratch.clear()


class Watch:
    """Which tests run, in which order, and what they reach."""

    def __init__(self) -> None:
        self.only: list[str] | None = json.loads(os.environ.get("MUTANTS_ONLY", "null"))
        self.tracer: Any = None
        self.passed: dict[str, float] = {}
        self.failed: list[str] = []
        self._began = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        from medseg.imaging.room import ReadingRoom

        ReadingRoom.read = read_in_this_process  # type: ignore[method-assign]
        ReadingRoom.warm_up = warm_up  # type: ignore[method-assign]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.only is not None:
            place = {test: n for n, test in enumerate(self.only)}
            items[:] = sorted((one for one in items if one.nodeid in place), key=lambda one: place[one.nodeid])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if self.tracer is not None:
            self.tracer.switch_context(item.nodeid)
        self._began = time.monotonic()
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed[report.nodeid] = time.monotonic() - self._began
