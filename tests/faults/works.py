"""Work for the worker processes of these tests: it hangs, dies, or writes a small result."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

from medseg.jobs.request import JobRequest


def identify(model: str) -> str:
    return model


def fine(request: JobRequest, progress: Any) -> dict[str, Any]:
    (request.out / "mask.nii.gz").write_bytes(b"mask")
    return {"findings": []}


def hang(request: JobRequest, progress: Any) -> dict[str, Any]:
    time.sleep(600)
    return {}


def dies_once(request: JobRequest, progress: Any) -> dict[str, Any]:
    note = request.source.parent / "deed"
    if note.exists():
        deed = note.read_text()
        note.unlink()
        _do(deed)
    return fine(request, progress)


def b_dies(request: JobRequest, progress: Any) -> dict[str, Any]:
    if request.source.name.startswith("b"):
        os._exit(9)
    return fine(request, progress)


def _do(deed: str) -> None:
    if deed == "exit":
        os._exit(9)
    elif deed == "segfault":
        ctypes.string_at(0)
    else:
        _do(deed)
