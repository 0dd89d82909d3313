"""The reading room: scans are read in one warm process that may break, run out of memory or hang without harm.

The process lives in a cage (see `cage`): it cannot start programs, open the network or take more than its share. It is
started once and reused; a scan that breaks it costs that scan. Voxels come back through shared memory, uncopied.
"""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medseg import errors
from medseg.errors import CorruptFileError, InputError, MedsegError, ResourceError, WorkerError
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.room_child import receive, send
from medseg.imaging.volume import Finding, Geometry, Volume
from medseg.runtime.scratch import Scratch

CPU_S = 900
WALL_S = 1800.0
_LEAVE_S = 2.0
_LAST_WORDS = 2000
_ENTRY = "from medseg.imaging.room_child import main; main()"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
_MEMORY_ADVICE = "Close other programs, or use a computer with more memory."


class ReadingRoom:
    """One process that reads one scan at a time; any thread may ask, they wait for each other.

    Args:
        cpu_s: computing time that one scan may take.
        wall_s: time that one scan may take altogether, waiting for a slow disk included.
        memory_bytes: address space of the process; None takes the lesser of 16 GiB and most of the memory.
    """

    def __init__(self, cpu_s: int = CPU_S, wall_s: float = WALL_S, memory_bytes: int | None = None) -> None:
        self.cpu_s, self.wall_s, self.memory_bytes = cpu_s, wall_s, memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: socket.socket | None = None
        self._scratch: Scratch | None = None
        self._log: BinaryIO | None = None

    def read(self, path: Path, series: str | None = None, accept: Acceptance = NOTHING) -> Volume:
        """Read one scan; see `reader.read_volume`.

        Raises:
            InputError: one of its branches; also where the file breaks the process that reads it.
            ResourceError: not enough memory.
        """
        request = {"path": os.path.abspath(path), "series": series, "accept": accept.reason, "cpu_s": self.cpu_s}
        with self._lock:
            warm = self._is_alive()
            try:
                message, handles = self._ask(path, request)
            except _Died as death:
                if not (warm and not death.accepted):
                    raise self._obituary(path) from None
                # It died while it was idle: that is not this scan's fault.
                message, handles = self._ask_again(path, request)
            finally:
                if self._scratch is not None:
                    self._scratch.clear()
        return _volume(path, message, handles)

    def warm_up(self) -> None:
        """Start the process, if it is not running; returns at once."""
        with self._lock:
            if not self._is_alive():
                self._start()

    @property
    def pid(self) -> int | None:
        """Process id of the living process, or None."""
        return self._process.pid if self._process is not None and self._is_alive() else None

    def close(self) -> None:
        """End the process, which is idle, and remove what it has unpacked."""
        with self._lock:
            self._end(_LEAVE_S)
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = None
            if self._log is not None:
                self._log.close()
                self._log = None

    def leave(self) -> None:
        """As `close`, without waiting for anybody: this process ends at once."""
        if self._process is not None:
            self._process.kill()
        if self._scratch is not None:
            self._scratch.close()

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _ask_again(self, path: Path, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        self._end()  # its pipe is broken, whether or not the system has buried it yet
        try:
            return self._ask(path, request)
        except _Died:
            raise self._obituary(path) from None

    def _ask(self, path: Path, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        if not self._is_alive():
            self._end()
            self._start()
        assert self._pipe is not None
        assert self._scratch is not None
        deadline, accepted = time.monotonic() + self.wall_s, False
        assert self._log is not None
        self._log.seek(0)
        self._log.truncate()
        try:
            send(self._pipe, request | {"scratch": str(self._scratch.path)})
            while True:
                self._pipe.settimeout(max(0.01, deadline - time.monotonic()))
                message, handles = receive(self._pipe)
                if message["kind"] != "accepted":
                    return message, handles
                accepted = True
        except TimeoutError:
            self._end()
            raise _too_slow(path, self.wall_s) from None
        except (EOFError, OSError):
            raise _Died(accepted) from None
        except BaseException:  # Ctrl-C: an answer that nobody waits for must not answer the next question
            self._end()
            raise

    def _start(self) -> None:
        self._scratch = self._scratch or Scratch("reading")
        self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the room
        self._pipe, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _ENTRY, str(theirs.fileno()), str(self.memory_bytes or 0)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                env={**os.environ, **_paths(), **dict.fromkeys(_ONE_THREAD, "1")},
            )

    def _end(self, patience_s: float = 0.2) -> None:
        """Let the process see that nobody asks any more; one that is busy does not look, and is killed."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait(_LEAVE_S)
            self._process = None

    def _obituary(self, path: Path) -> MedsegError:
        assert self._process is not None
        code = self._process.wait()
        self._end()
        if code == -signal.SIGXCPU:
            return _too_slow(path, self.cpu_s)
        if code == -signal.SIGKILL:
            reason = "the process that read it was killed, most often because the computer ran out of memory."
            return ResourceError(f"{path.name}: {reason}", advice=_MEMORY_ADVICE)
        if code < 0:
            how = signal.Signals(-code).name
            return CorruptFileError(path, f"breaks the program that reads it ({how}): its contents are damaged.")
        return WorkerError(f"{path.name}: the reading process ended with exit code {code}. {self._last_line()}".strip())

    def _last_line(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LAST_WORDS))
        lines = self._log.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else ""


class _Died(Exception):  # noqa: N818 - what happened, not an error of the caller's
    """The process ended; `accepted` tells whether it had begun with the scan."""

    def __init__(self, accepted: bool) -> None:
        super().__init__()
        self.accepted = accepted


def _paths() -> dict[str, str]:
    # The child finds what the parent finds, and (-P) nothing that happens to lie in the current folder.
    return {"PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}


def _too_slow(path: Path, seconds: float) -> InputError:
    return CorruptFileError(path, f"was given up after {seconds / 60:.0f} minutes of reading.")


def _volume(path: Path, message: dict[str, Any], handles: list[int]) -> Volume:
    if message["kind"] == "volume":
        return _mapped(path, message, handles[0])
    for handle in handles:
        os.close(handle)
    if message["kind"] == "refused":
        raise _error(path, message)
    if message["kind"] == "memory":
        raise ResourceError(f"{path.name}: not enough memory to read it.", advice=_MEMORY_ADVICE)
    raise CorruptFileError(path, f"cannot be read ({message['what']}).")


def _mapped(path: Path, message: dict[str, Any], handle: int) -> Volume:
    i, j, k = message["shape"]
    try:
        shared = mmap.mmap(handle, i * j * k * 4)
    finally:
        os.close(handle)
    hu = np.frombuffer(shared, np.float32).reshape((i, j, k), order="F")
    return Volume(
        hu=hu,
        geometry=Geometry((i, j, k), np.array(message["affine"])),
        name=message["name"],
        findings=tuple(Finding(**finding) for finding in message["findings"]),
        sha256=message["sha256"],
        format=message["format"],
        series=message["series"],
        evidence=message["evidence"],
    )


def _error(path: Path, message: dict[str, Any]) -> MedsegError:
    """The error of the child's; its class is looked up among ours, whatever the child says."""
    kind = getattr(errors, message["error"], None)
    if not (isinstance(kind, type) and issubclass(kind, MedsegError)):
        return CorruptFileError(path, "cannot be read.")
    if kind is errors.SeriesChoiceError:
        return errors.SeriesChoiceError(path, message["series"], message["reason"])
    if issubclass(kind, InputError):
        return kind(path, message["reason"], advice=message["advice"])
    return kind(message["message"], advice=message["advice"])


_rooms: dict[int, ReadingRoom] = {}
_rooms_lock = threading.Lock()


def reading_room() -> ReadingRoom:
    """The room of this process; a forked child gets one of its own."""
    with _rooms_lock:
        room = _rooms.get(os.getpid())
        if room is None:
            _rooms.clear()
            room = _rooms[os.getpid()] = ReadingRoom()
            atexit.register(_close, os.getpid())
        return room


def _close(pid: int) -> None:
    if os.getpid() == pid and pid in _rooms:
        _rooms.pop(pid).close()


def leave() -> None:
    """For processes that end without Python's farewell: take the reading process along, and leave no file behind."""
    for pid, room in list(_rooms.items()):
        if pid == os.getpid():
            room.leave()
