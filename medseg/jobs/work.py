"""What a worker process runs: `medseg.segment` and `save`."""

from __future__ import annotations

from typing import Any

from medseg.jobs.request import JobRequest
from medseg.models.store import load_model
from medseg.runtime.progress import ProgressCallback


def segment_study(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Segment one study into the empty folder `request.out`.

    Returns:
        `findings`: the result's remarks, a sentence each; `verdict`: 'segmented', or 'empty' with its reason there.

    Raises:
        MedsegError: the study, the model or the folder cannot be used.
    """
    from medseg.api import segment  # brings torch, which the parent process never needs

    result = segment(
        request.source, model=request.model, series=request.series, progress=progress, options=request.options
    )
    result.save(request.out)
    return {"findings": [str(finding) for finding in result.findings], "verdict": result.run["verdict"]}


def identify_model(model: str) -> str:
    """Digest of an installed model, without torch.

    Raises:
        UnknownModelError: nothing of that name is installed.
        ModelIntegrityError: a file of the package is not what the card says.
    """
    return load_model(model).sha256
