"""The scan of a study, read as the visitor wished it: which series, and what was accepted on purpose."""

from __future__ import annotations

from medseg.imaging import Volume, read_volume
from medseg.jobs.request import JobRequest


def read(request: JobRequest) -> Volume:
    """Read the scan that a request is about.

    Raises:
        InputError: it cannot be used.
    """
    return read_volume(request.source, series=request.series, accept=request.options.accept or None)
