"""One study from request to published result folder; what the queue and the batch have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from medseg.jobs.child import describe
from medseg.jobs.folders import check_place, discard, new_part, publish
from medseg.jobs.request import JobRequest, Outcome
from medseg.jobs.worker import Worker
from medseg.runtime.progress import ProgressCallback


def run_study(
    worker: Worker,
    request: JobRequest,
    progress: ProgressCallback,
    cancelled: threading.Event,
    replaceable: Collection[str] = (),
    before_publishing: Callable[[Path, Outcome], None] | None = None,
) -> Outcome:
    """Let `worker` segment one study and rename the result to `request.out` when it is complete.

    Args:
        worker: the process to use.
        request: the study.
        progress: called in this thread.
        cancelled: set it from any thread to stop.
        replaceable: names of files in an existing `request.out` that may be lost; with others in it, the
            folder is kept under another name.
        before_publishing: called with the complete but still hidden folder; may raise.
    """
    try:
        check_place(request.out, replaceable)
        part = new_part(request.out)
        try:
            outcome = worker.run(replace(request, out=part), progress, cancelled)
            if outcome.status == "done":
                if before_publishing is not None:
                    before_publishing(part, outcome)
                publish(part, request.out, replaceable)
            return outcome
        finally:
            discard(part)
    except Exception as error:  # a queue or batch goes on, whatever happened to one study
        return Outcome("failed", failure=describe(error, request.source))
