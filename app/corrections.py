"""Corrections by hand: a draft for each result that somebody draws on, and the version that it becomes."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

from app.drafts import Draft
from app.results import SHOWN
from app.scans import MASK
from app.studies import refused

if TYPE_CHECKING:
    from app.services import Desk


class Corrections:
    """The drafts of one desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._drafts: dict[tuple[str, int], Draft] = {}
        self._lock = threading.RLock()

    def draft(self, study: str, visitor: str, number: int) -> Draft | None:
        """The draft of a correction of that run, begun where there is none."""
        scan = self.desk.scan(study, visitor)
        if scan is None or self.desk.result(study, visitor, number) is None:
            return None
        with self._lock:
            if (study, number) not in self._drafts:
                folder = self.desk.folders.root / study / "drafts"
                mask = self.desk.run_folder(study, number) / SHOWN / MASK
                self._drafts[study, number] = Draft.open(folder / f"{number}.npy", mask, scan.spacing_mm)
            return self._drafts[study, number]

    def save(self, study: str, visitor: str, number: int) -> int:
        """Make the draft a new run; its number. The draft is gone afterwards, the run that it began with is not.

        Raises:
            Refused: nothing was changed.
        """
        draft, result = self.draft(study, visitor, number), self.desk.result(study, visitor, number)
        if draft is None or result is None:
            raise refused("gone")
        changed = draft.touched_organs(result.mask())
        if not changed:
            raise refused("unchanged")
        with self._lock:
            version = len(self.desk.entry(study, visitor).runs) + 1
            kept = self.desk.folders.root / study / "drafts" / f"{number}-as-{version}.npy"
            shutil.copyfile(draft.path, kept)
            organs = [row.name for row in result.organs if row.value in changed]
            extra = {"task": "correct", "result": str(result.folder), "draft": str(kept), "version": version}
            new = self.desk.add_run(
                study,
                visitor,
                result.model,
                corrected=True,
                queue=self.desk.helpers,
                extra=extra | {"organs": organs},
            )
            self._drafts.pop((study, number)).discard()
        return new

    def take_back(self, study: str) -> None:
        """Forget the drafts of a study that goes."""
        with self._lock:
            for key in [key for key in self._drafts if key[0] == study]:
                del self._drafts[key]
