"""One process at a time: a lock on a small file or a folder, which the system frees however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import OutputError


@contextmanager
def locked(place: Path, *, folder: bool = False) -> Iterator[None]:
    """Wait for the lock of the file `place`, which is made where it is missing and stays, and hold it.

    With `folder` a folder itself is locked, and nothing made in it; only local disks are sure to be able to.

    Raises:
        OutputError: it cannot be made or opened, or its file system knows no locks.
    """
    handle = _acquire(place, folder)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # closing alone would leave it to a process forked meanwhile
        os.close(handle)


@contextmanager
def busy(file: Path) -> Iterator[bool]:
    """Whether another process holds the lock of `file`, which is made where it is missing; if none does, hold it.

    The system frees it when its holder ends, also while processes that were forked from it live on for a moment. Within
    one process it holds nobody back.

    Raises:
        OutputError: it cannot be made or opened.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = _open(file)
    except OSError as error:
        raise OutputError(f"{file} could not be made: {error.strerror or error}.") from error
    try:
        yield not _mine(handle)
    finally:
        os.close(handle)


def _mine(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks: nobody can be told
        return True
    return True


def _acquire(place: Path, folder: bool) -> int:
    try:
        handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC) if folder else _open(place)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        advice = "Use a local folder that can be written to."
        raise OutputError(f"{place} could not be locked: {error.strerror or error}.", advice=advice) from error
    return handle


def _open(file: Path) -> int:
    flags = os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(file, flags | os.O_RDWR, 0o666)  # network file systems lock only what is open for writing
    except PermissionError:  # made by another user of a shared folder; reading is enough on a local disk
        return os.open(file, flags | os.O_RDONLY, 0o666)
