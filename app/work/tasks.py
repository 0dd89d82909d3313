"""What people ask for beside the segmentation: one process, one thing at a time, told by `extra["task"]`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from medseg.jobs.request import JobRequest
from medseg.runtime.progress import ProgressCallback

Task = Callable[[JobRequest, ProgressCallback], dict[str, Any]]
TASKS = {
    "forecast": "app.work.forecast:forecast",
    "export": "app.work.files:export_one",
    "correct": "app.work.correct:correct",
    "training": "app.work.correct:hand_to_training",
    "surfaces": "app.work.surfaces:surfaces",
    "compare": "app.work.compare:compare",
    "open": "app.work.open:lay_out",
    "import": "app.work.shelf:import_model",
}


def run(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Do what the request names; libraries are loaded when they are first needed."""
    module, _, function = TASKS[request.extra["task"]].partition(":")
    task: Task = getattr(import_module(module), function)
    return task(request, progress)
