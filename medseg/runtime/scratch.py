"""Private temporary folders that outlive nobody: what a killed process left behind, the next one removes.

Each process holds a lock on its folder while it lives, so that a later one can tell what a dead one left from what a
neighbour still uses. Folders are made and swept under the lock of their parent: a folder is never seen without the
lock of its maker. Scans are unpacked into such folders.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from medseg.runtime.lock import locked

LOCK = "lock"
_YOUNG_S = 60.0


class Scratch:
    """A folder `<temp>/medseg-<purpose>-<uid>/<random>/files`, readable by this user alone.

    Args:
        purpose: part of the name.
        parent: where to make it; the system's temporary folder by default.

    Raises:
        PermissionError: the place exists and belongs to someone else.
        OutputError: the place cannot be locked.
    """

    def __init__(self, purpose: str, parent: Path | None = None) -> None:
        self.root, self._lock = make_held(purpose, parent)
        self.path = self.root / "files"
        self.path.mkdir(mode=0o700)

    def clear(self) -> None:
        """Remove everything in it."""
        with suppress(FileNotFoundError):
            for entry in os.scandir(self.path):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)


def make_held(purpose: str, parent: Path | None = None) -> tuple[Path, int]:
    """Make a folder `<parent>/medseg-<purpose>-<uid>/<random>` and remove what the dead left beside it.

    Returns:
        The folder, and the handle of its lock: the folder is this process's until that is closed.

    Raises:
        PermissionError: the place exists and belongs to someone else.
        OutputError: the place cannot be locked.
    """
    base = (parent or Path(tempfile.gettempdir())) / f"medseg-{purpose}-{os.getuid()}"
    make_private(base)
    with locked(base, folder=True):
        remove_abandoned(base)
        folder = base / secrets.token_urlsafe(8)
        make_private(folder)
        return folder, _hold(folder)


def make_private(folder: Path) -> None:
    """Make a folder that only this user can open.

    Raises:
        PermissionError: the place exists and belongs to someone else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    # The temporary folder is everyone's: a link or folder planted there under our name is refused.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to someone else.")
    folder.chmod(0o700)


def _hold(folder: Path) -> int:
    """Take the lock of a folder; the system frees it when this process ends, however it ends."""
    handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def remove_abandoned(base: Path) -> None:
    """Remove the folders below `base` whose holder is dead; to be called under the lock of `base`."""
    for folder in base.iterdir():
        if folder.is_dir() and not folder.is_symlink() and _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # A neighbour may just be removing its folder, or be of a version that locks later than it makes.
        with suppress(FileNotFoundError):
            return folder.stat().st_mtime < time.time() - _YOUNG_S
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
