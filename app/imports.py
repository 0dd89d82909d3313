"""Models that visitors at this computer take over, one at a time."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from app.studies import Problem, TaskView
from medseg.jobs.queue import Job
from medseg.jobs.request import JobRequest

if TYPE_CHECKING:
    from app.services import Desk


class Imports:
    """The imports of one desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()

    def start(self, visitor: str, folder: Path, shelf: Path, name: str) -> str:
        """Begin an import; the number by which to ask after it."""
        out = self.desk.folders.root / self.desk.folders.new() / "import"
        extra = {"task": "import", "name": name, "shelf": str(shelf)}
        number = secrets.token_hex(8)
        with self._lock:
            self._jobs[visitor, number] = self.desk.helpers.submit(JobRequest(folder, out, extra=extra))
        return number

    def view(self, visitor: str, number: str) -> TaskView:
        """How an import stands."""
        with self._lock:
            job = self._jobs.get((visitor, number))
        if job is None:
            return TaskView("gone", self.desk.folders.root)
        now = job.status
        problem = Problem(now.error.message, now.error.advice, code=now.error.error) if now.error else None
        return TaskView(now.state, job.request.out, now.fraction, problem)
