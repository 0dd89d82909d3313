"""Corrections by hand: a draft for each result that somebody draws on, and the version that it becomes."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.drafts import Draft
from app.results import SHOWN, Result
from app.scans import MASK
from app.studies import refused

if TYPE_CHECKING:
    from app.services import Desk


@dataclass(frozen=True)
class _Saved:
    """A draft on its way to a version: the run that it becomes, the copy that is read for it, and how far it was."""

    run: int
    copy: Path
    revision: int


class Corrections:
    """The drafts of one desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._drafts: dict[tuple[str, int], Draft] = {}
        self._saved: dict[tuple[str, int], _Saved] = {}
        self._lock = threading.RLock()

    def draft(self, study: str, visitor: str, number: int) -> Draft | None:
        """The draft of a correction of that run, begun where there is none."""
        scan, result = self.desk.scan(study, visitor), self.desk.result(study, visitor, number)
        if scan is None or result is None:
            return None
        with self._lock:
            if (study, number) not in self._drafts:
                path = self.desk.folders.root / study / "drafts" / f"{number}.npy"
                self._drafts[study, number] = Draft.open(path, result.folder / SHOWN / MASK, scan.spacing_mm)
            self._settle(study, visitor, result, number)
            return self._drafts[study, number]

    def _settle(self, study: str, visitor: str, result: Result, number: int) -> None:
        """Begin anew where the draft has become a version; after a failure or a cancel its strokes are still there."""
        saved = self._saved.get((study, number))
        run = self.desk.view(study, visitor).run(saved.run) if saved is not None else None
        if saved is None or run is None or run.state in ("queued", "running"):
            return
        del self._saved[study, number]
        saved.copy.unlink(missing_ok=True)
        draft = self._drafts[study, number]
        # What was drawn since it was saved, in another tab for instance, is in no version yet.
        if run.state == "done" and draft.revision == saved.revision:
            draft.restart(result.mask())

    def save(self, study: str, visitor: str, number: int) -> int:
        """Make the draft a new run; its number. The run that it began with stays, the draft goes once that is done.

        Raises:
            Refused: nothing was changed, or what was is being saved already.
        """
        draft, result = self.draft(study, visitor, number), self.desk.result(study, visitor, number)
        if draft is None or result is None:
            raise refused("gone")
        changed = draft.touched_organs(result.mask())
        with self._lock:
            saved = self._saved.get((study, number))
            if not changed or (saved is not None and saved.revision == draft.revision):
                raise refused("unchanged")
            version = len(self.desk.entry(study, visitor).runs) + 1
            kept = draft.path.with_name(f"{number}-as-{version}.npy")
            revision = draft.copy_to(kept)
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
            self._saved[study, number] = _Saved(new, kept, revision)
        return new

    def take_back(self, study: str) -> None:
        """Forget the drafts of a study that goes."""
        with self._lock:
            for kept in (self._drafts, self._saved):
                for key in [key for key in kept if key[0] == study]:
                    del kept[key]
