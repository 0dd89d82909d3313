"""One batch at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import OutputError

LOCK = ".medseg-batch.lock"


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for one batch. The system frees the lock of a process that dies, however it dies.

    Raises:
        OutputError: another batch holds it, or the folder cannot be written.
    """
    handle = _open(folder)
    try:
        _acquire(handle, folder)
        yield
    finally:
        os.close(handle)


def _open(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OutputError(f"{folder} could not be written: {error.strerror or error}.") from error


def _acquire(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise OutputError(f"{folder} cannot be locked: {error.strerror}.", advice="Use a local folder.") from error
        holder = os.pread(handle, 200, 0).decode(errors="replace") or "an unknown process"
        advice = "Wait for it to end, or choose another output folder."
        raise OutputError(f"{folder} is in use by another batch ({holder}).", advice=advice) from error
    # The file stays when the lock is released: removing it would race with the next holder.
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
