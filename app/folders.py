"""Private work folders: one per study, readable by this user alone, swept away after some hours.

Layout: `<temp>/medseg-page-<uid>/<server>/<study>/`. A server holds a lock on its folder while it lives,
so that a later server can tell what a dead one left behind from what a neighbour still uses.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from pathlib import Path

from medseg.runtime.scratch import make_held, make_private

KEEP_HOURS = 8.0
_STUDY_ID = re.compile(r"[0-9a-f]{32}")


class WorkFolders:
    """The folders of one server.

    Args:
        parent: where to keep them; the system's temporary folder by default.

    Raises:
        PermissionError: the place exists and belongs to someone else.
        OutputError: the place cannot be locked.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self.root, self._lock = make_held("page", parent)

    def new(self) -> str:
        """Make an empty folder for a study; its id cannot be guessed."""
        study = secrets.token_hex(16)  # keys of components may hold no "__"
        make_private(self.root / study)
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
