"""The scan of a study, read as the visitor wished it: which series, and what was accepted on purpose."""

from __future__ import annotations

from pathlib import Path

from app.scans import read_scan
from medseg.errors import ScanChangedError
from medseg.imaging import Volume, read_volume
from medseg.jobs.request import JobRequest


def read(request: JobRequest) -> Volume:
    """Read the scan that a request is about.

    Raises:
        InputError: it cannot be used.
        ScanChangedError: it is not the one that was opened.
    """
    volume = read_volume(request.source, series=request.series, accept=request.options.accept or None)
    check_unchanged(request, volume)
    return volume


def check_unchanged(request: JobRequest, volume: Volume) -> None:
    """A scan on this computer may be replaced while the page shows it: no mask is laid over another one.

    Args:
        request: `extra["scan"]` is the folder in which the scan was laid out when it was opened; without it, or
            before it is written, there is nothing to compare with.
        volume: the scan as it was read now.

    Raises:
        ScanChangedError: it is not the one that was opened.
    """
    folder = request.extra.get("scan")
    opened = read_scan(Path(folder)) if folder else None
    if opened is not None and opened.facts["sha256"] != volume.sha256:
        raise ScanChangedError(f"{request.source.name}: the scan has changed since it was opened.")
