"""Works for tests: what a worker process runs instead of a network. The source's text says what happens."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from medseg.errors import MissingSlicesError, SeriesChoiceError
from medseg.jobs.request import JobRequest, Work
from medseg.runtime.progress import Progress, ProgressCallback

CALLS = 0


def act(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Do what the first word of the source file says."""
    global CALLS
    CALLS += 1
    progress(Progress("read", 0.1, "Reading."))
    order, *rest = request.source.read_text().split()
    print("noise on standard output", flush=True)
    _ORDERS[order](request, progress, *rest)
    return {"findings": [f"{order} by {os.getpid()}"], "calls": CALLS}


def _write(request: JobRequest, progress: ProgressCallback, value: str = "1") -> None:
    progress(Progress("segment", 0.5, "Segmenting."))
    (request.out / "mask.nii.gz").write_text(value)
    (request.out / "run.json").write_text("{}")


def _slow(request: JobRequest, progress: ProgressCallback, seconds: str) -> None:
    (request.out / "half.txt").write_text("half")
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        progress(Progress("segment", 0.5, "Segmenting."))
        time.sleep(0.01)
    (request.out / "half.txt").unlink()
    _write(request, progress)


def _deaf(request: JobRequest, progress: ProgressCallback, seconds: str) -> None:
    (request.out / "half.txt").write_text("half")
    time.sleep(float(seconds))


def _frozen(request: JobRequest, progress: ProgressCallback) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _die(request: JobRequest, progress: ProgressCallback, number: str) -> None:
    os.kill(os.getpid(), int(number))


def _leave(request: JobRequest, progress: ProgressCallback) -> None:
    os._exit(7)


def _gap(request: JobRequest, progress: ProgressCallback) -> None:
    raise MissingSlicesError(request.source, "slices 3 to 5 are missing.")


def _choice(request: JobRequest, progress: ProgressCallback) -> None:
    raise SeriesChoiceError(request.source, ["1: thin", "2: thick"])


def _bug(request: JobRequest, progress: ProgressCallback) -> None:
    raise KeyError("surprise")


def _hungry(request: JobRequest, progress: ProgressCallback) -> None:
    bytearray(1 << 60)


def _empty(request: JobRequest, progress: ProgressCallback) -> None:
    pass


_ORDERS = {
    "write": _write,
    "slow": _slow,
    "deaf": _deaf,
    "frozen": _frozen,
    "die": _die,
    "leave": _leave,
    "gap": _gap,
    "choice": _choice,
    "bug": _bug,
    "hungry": _hungry,
    "empty": _empty,
}


def threshold(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """A mask of all voxels above 0 HU; a NIfTI that cannot be read raises what nibabel raises."""
    import nibabel as nib  # the other works start quicker without
    import numpy as np

    progress(Progress("read", 0.1, "Reading."))
    image = nib.load(request.source)
    mask = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    progress(Progress("segment", 0.6, "Segmenting."))
    nib.save(nib.Nifti1Image(mask, image.affine), request.out / "mask.nii.gz")
    return {"findings": []}


def identify(model: str) -> str:
    """The name is the model."""
    return f"sha-of-{model}"


HERE = __name__
ACT = Work(f"{HERE}:act", f"{HERE}:identify")
THRESHOLD = Work(f"{HERE}:threshold", f"{HERE}:identify")
SIGKILL, SIGSEGV = int(signal.SIGKILL), int(signal.SIGSEGV)
