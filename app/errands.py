"""What is asked for beside the segmentation: forecasts, exports, surfaces, comparisons, cases to train on.

An errand is run once; asked again, it tells how it stands. What it made lies in the study's private folder.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.entries import problem_of
from app.studies import Forecast, TaskView
from medseg.jobs.queue import Job

if TYPE_CHECKING:
    from app.services import Desk


class Errands:
    """The errands of one desk; every question names the visitor who asks."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.RLock()

    def forecast(self, study: str, visitor: str, model: str) -> Forecast | None:
        """What a run will take; None until that is known, or where it cannot be."""
        if self.desk.scan(study, visitor) is None:
            return None
        facts = {"scan": str(self.desk.entry(study, visitor).scan_folder)}
        task = self.task(study, visitor, "forecast", (model,), facts, model=model)
        if task.state != "done":
            return None
        figures = json.loads((task.folder / "forecast.json").read_text("utf-8"))
        return Forecast(figures["seconds"], figures["memory_mb"])

    def has_failed(self, study: str, model: str) -> bool:
        """Whether no forecast is to be had."""
        with self._lock:
            job = self._jobs.get((study, f"forecast-{model}"))
        return job is not None and job.state in ("failed", "cancelled")

    def known_forecast(self, study: str, visitor: str, model: str) -> float:
        """Seconds that were forecast, where somebody has asked already; else 0."""
        with self._lock:
            asked = (study, f"forecast-{model}") in self._jobs
        found = self.forecast(study, visitor, model) if asked else None
        return found.seconds if found else 0.0

    def task(
        self,
        study: str,
        visitor: str,
        task: str,
        key: tuple[str, ...],
        extra: Mapping[str, Any],
        *,
        model: str = "",
        again: bool = False,
    ) -> TaskView:
        """Ask for an errand once; asked again, how it stands.

        Args:
            study, visitor: whose it is.
            task: one of `app.work.tasks.TASKS`.
            key: what tells this errand from others of its kind.
            extra: what the errand is told.
            model: name of the model, where one is needed.
            again: run it anew where it failed.
        """
        entry = self.desk.entry(study, visitor)
        name = "-".join((task, *key))
        with self._lock:
            job = self._jobs.get((study, name))
            if job is None or (again and job.state in ("failed", "cancelled")):
                out = self.desk.folders.root / study / "tasks" / re.sub(r"[^\w.-]", "_", name)
                shutil.rmtree(out, ignore_errors=True)
                told = {**extra, "task": task}
                job = self._jobs[study, name] = self.desk.helpers.submit(entry.request(out, model=model, extra=told))
        now = job.status
        problem = problem_of(entry, now.error) if now.error else None
        return TaskView(now.state, job.request.out, now.fraction, problem)

    def export(
        self, study: str, visitor: str, number: int, name: str, language: str, *, again: bool = False
    ) -> TaskView:
        """A result in another format."""
        extra = {"format": name, "language": language, "result": str(self.desk.run_folder(study, number))}
        return self.task(study, visitor, "export", (str(number), name, language), extra, again=again)

    def surfaces(self, study: str, visitor: str, number: int | None) -> TaskView:
        """Surfaces of a result's organs, or of the scan's bones."""
        extra = {"scan": str(self.desk.entry(study, visitor).scan_folder)}
        if number is None:
            return self.task(study, visitor, "surfaces", ("bone",), extra)
        return self.task(
            study, visitor, "surfaces", (str(number),), extra | {"result": str(self.desk.run_folder(study, number))}
        )

    def compare(self, study: str, visitor: str, number: int, other: str, other_number: int) -> TaskView:
        """This result against another one of the same visitor."""
        extra = {
            "scan": str(self.desk.entry(study, visitor).scan_folder),
            "result": str(self.desk.run_folder(study, number)),
            "other_scan": str(self.desk.entry(other, visitor).scan_folder),
            "other_result": str(self.desk.run_folder(other, other_number)),
        }
        return self.task(study, visitor, "compare", (str(number), other, str(other_number)), extra)

    def training_case(self, study: str, visitor: str, number: int, folder: Path, organs: Sequence[str]) -> TaskView:
        """The scan and a reviewed result as a case to train on."""
        extra = {"result": str(self.desk.run_folder(study, number)), "folder": str(folder), "organs": list(organs)}
        return self.task(study, visitor, "training", (str(number), "_".join(sorted(organs))), extra)

    def take_back(self, study: str) -> list[Job]:
        """Forget the errands of a study that goes; their jobs, to be stopped."""
        with self._lock:
            return [self._jobs.pop(key) for key in list(self._jobs) if key[0] == study]
