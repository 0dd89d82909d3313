"""A reading process that misbehaves as the name of the file asks: what hostile files may do to a real one."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from medseg.imaging import intake, room_child

_read_here = intake.read_here


def _recursion() -> None:
    _recursion()


def _loop() -> None:
    while True:
        pass


def _memory() -> None:
    kept = []
    while True:
        kept.append(np.empty(1 << 28))


def _litter() -> None:
    Path(tempfile.mkdtemp(), "scan").write_text("DOE^PLANTED")
    os.kill(os.getpid(), signal.SIGSEGV)


def _bug() -> None:
    raise ZeroDivisionError("DOE^PLANTED")


_DEEDS = {
    "segfault": lambda: ctypes.string_at(0),
    "loop": _loop,
    "memory": _memory,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "bug": _bug,
    "recursion": _recursion,
    "exit": lambda: os._exit(9),
    "sleep": lambda: time.sleep(600),
    "socket": socket.socket,
    "program": lambda: subprocess.run(["true"], check=True),
    "litter": _litter,
}


def main() -> None:
    """Entry of the process, in place of the real one's."""
    intake.read_here = _spoiled
    room_child.main()


def _spoiled(path: Path, *more: object) -> object:
    deed = _DEEDS.get(path.stem)
    if deed is not None:
        deed()
    return _read_here(path, *more)
