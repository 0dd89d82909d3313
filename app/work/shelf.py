"""Take over a model of nnU-Net or a MONAI bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.imaging.emit import emit_json
from medseg.jobs.request import JobRequest
from medseg.models.importers.run import import_models
from medseg.models.store import load_model
from medseg.runtime.progress import Progress, ProgressCallback


def import_model(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Import the folder `request.source` under the name `extra["name"]` onto the shelf `extra["shelf"]`.

    Raises:
        ModelImportError: it is no model, or a hostile one.
        ConfigError: the name cannot be used.
    """
    progress(Progress("model", 0.1, "Reading the model"))
    shelf = Path(request.extra["shelf"])
    shelf.mkdir(parents=True, exist_ok=True)
    folder = import_models([request.source], shelf, request.extra["name"])
    card = load_model(folder).card
    emit_json(request.out / "model.json", {"name": card.name, "limits": list(card.limits)})
    return {}
