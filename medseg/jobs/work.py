"""What a worker process runs: `medseg.segment` and `save`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medseg.imaging.volume import Finding
from medseg.jobs.child import describe
from medseg.jobs.request import JobRequest
from medseg.models.store import load_model
from medseg.runtime.progress import ProgressCallback

if TYPE_CHECKING:
    from medseg.exports import Order
    from medseg.results.segmentation import Segmentation


def segment_study(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Segment one study into the empty folder `request.out`.

    Returns:
        `findings`: the result's remarks, a sentence each, formats that could not be written among them; `verdict`:
        'segmented', or 'empty' with its reason there.

    Raises:
        MedsegError: the study, the model or the folder cannot be used.
    """
    from medseg.api import segment  # brings torch, which the parent process never needs

    result = segment(
        request.source, model=request.model, series=request.series, progress=progress, options=request.options
    )
    result = _exported(result, request)
    result.save(request.out)
    return {"findings": [str(finding) for finding in result.findings], "verdict": result.run["verdict"]}


def _exported(result: Segmentation, request: JobRequest) -> Segmentation:
    """Write what was asked for beside the usual files, and say what could not be had."""
    if not request.formats:
        return result
    from medseg.exports import order_for

    order = order_for(result, request.source, model=request.model)
    findings = [finding for name in request.formats for finding in _written(name, order, request)]
    return replace(result, findings=(*result.findings, *findings))


def _written(name: str, order: Order, request: JobRequest) -> tuple[Finding, ...]:
    """Write one format. Its failure is a finding, for the mask is finished and must not be lost with it."""
    from medseg.exports import export

    try:
        return export(order, (name,), request.out)
    except Exception as error:
        if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
            raise  # a full disk or a lost share concerns the mask too, and another run can mend it
        failure = describe(error, request.source)
        return (Finding("export_left_out", f"{name} was left out: {failure.message} {failure.advice}".strip()),)


def identify_model(model: str) -> str:
    """Digest of an installed model, without torch.

    Raises:
        UnknownModelError: nothing of that name is installed.
        ModelIntegrityError: a file of the package is not what the card says.
    """
    return load_model(model).sha256
