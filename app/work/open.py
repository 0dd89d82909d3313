"""A result that lies on the disk already (a batch's, an earlier day's), laid out for the viewer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from app.results import FILES
from app.work.reading import read
from app.work.segment import SHOWN, keep_for_page
from medseg.jobs.request import JobRequest
from medseg.results.load import load_result
from medseg.runtime.progress import Progress, ProgressCallback


def lay_out(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Copy the result `extra["result"]` into `request.out` and add what the page shows.

    Raises:
        DataError: it is not complete, or is the result of another scan.
    """
    progress(Progress("read", 0.1, "Reading the scan"))
    folder = Path(request.extra["result"])
    result = load_result(folder, read(request))
    for name in FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, request.out / name)
    keep_for_page(request.out / SHOWN, result)
    return {"findings": [str(finding) for finding in result.findings]}
