"""A result in another format, made when somebody asks for it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from app.work.reading import read
from medseg.errors import DataError
from medseg.exports import FORMATS, export, order_for
from medseg.jobs.request import JobRequest
from medseg.results.load import load_result
from medseg.runtime.progress import Progress, ProgressCallback


def export_one(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Write one format of a result into `request.out`; several files become one zip.

    Raises:
        DataError: this scan or result cannot have it.
    """
    name, language = request.extra["format"], request.extra["language"]
    progress(Progress("read", 0.1, "Reading the scan"))
    result = load_result(Path(request.extra["result"]), read(request))
    progress(Progress("save", 0.5, "Writing the file"))
    refused = export(order_for(result, request.source, language), (name,), request.out)
    if refused:
        raise DataError(refused[0].message)
    if not FORMATS[name][0]:
        _pack(request.out, name)
    return {}


def _pack(folder: Path, name: str) -> None:
    files = sorted(folder.iterdir())
    with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.name)
    for path in files:
        path.unlink()
