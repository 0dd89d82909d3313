"""Private work folders: one per study, readable by this user alone, swept away after some hours.

Layout: `<temp>/medseg-page-<uid>/<server>/<study>/`. A server holds a lock on its folder while it lives,
so that a later server can tell what a dead one left behind from what a neighbour still uses.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path

KEEP_HOURS = 8.0
_STUDY_ID = re.compile(r"[A-Za-z0-9_-]{22}")


class WorkFolders:
    """The folders of one server.

    Args:
        parent: where to keep them; the system's temporary folder by default.

    Raises:
        PermissionError: the place exists and belongs to someone else.
    """

    def __init__(self, parent: Path | None = None) -> None:
        base = (parent or Path(tempfile.gettempdir())) / f"medseg-page-{os.getuid()}"
        _make_private(base)
        _remove_abandoned(base)
        self.root = base / secrets.token_urlsafe(8)
        _make_private(self.root)
        self._lock = os.open(self.root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def new(self) -> str:
        """Make an empty folder for a study; its id cannot be guessed."""
        study = secrets.token_urlsafe(16)
        _make_private(self.root / study)
        return study

    def path(self, study: str) -> Path | None:
        """The folder of a study, or None where the id is unknown, malformed or swept away."""
        folder = self.root / study
        return folder if _STUDY_ID.fullmatch(study) and folder.is_dir() else None

    def touch(self, study: str) -> None:
        """Someone is still looking at it: count its hours from now."""
        folder = self.path(study)
        if folder is not None:
            os.utime(folder)

    def remove(self, study: str) -> None:
        """Delete a study with its scan and its result."""
        folder = self.path(study)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def expired(self, hours: float = KEEP_HOURS) -> list[str]:
        """Studies that nobody has looked at for that long."""
        limit = time.time() - hours * 3600
        folders = [path for path in self.root.iterdir() if path.is_dir()]
        return [folder.name for folder in folders if folder.stat().st_mtime < limit]

    def close(self) -> None:
        """Delete everything; the server ends. Closing twice is once."""
        if self.root.exists():
            shutil.rmtree(self.root, ignore_errors=True)
            os.close(self._lock)


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    # The temporary folder is everyone's: a link or folder planted there under our name is refused.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to someone else.")
    folder.chmod(0o700)


def _remove_abandoned(base: Path) -> None:
    for folder in base.iterdir():
        if folder.is_dir() and _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # A neighbour may have made its folder and not yet its lock.
        return folder.stat().st_mtime < time.time() - 60
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
