"""`medseg models import`: which kind of folder it is, and a package from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from medseg.errors import ModelImportError
from medseg.models.importers.foreign import ForeignModel
from medseg.models.importers.merge import merge
from medseg.models.importers.monai_bundle import METADATA, read_bundle
from medseg.models.importers.nnunet import PLANS, read_nnunet
from medseg.models.importers.package import UNKNOWN, network_spec, write_foreign


def import_models(
    folders: Sequence[Path],
    shelf: Path,
    name: str,
    *,
    version: str = "1.0.0",
    licence: str | None = None,
    folds: Sequence[str] = (),
    orientation: str | None = None,
    faithful: bool = False,
    labels: Path | None = None,
) -> Path:
    """Take over one model, or several that share a grid as one; returns the package's folder.

    Raises:
        ModelImportError: a file that is missing, hostile or not understood; it is named.
        ConfigError: a name that cannot be used.
    """
    models = [_read(folder, folds, orientation, faithful) for folder in folders]
    model, network = models[0], network_spec(models[0])
    if len(models) > 1 or labels is not None:
        model, network = merge(models, _read_labels(labels))
    return write_foreign(model, network, shelf, name, version=version, licence=licence or UNKNOWN)


def _read(folder: Path, folds: Sequence[str], orientation: str | None, faithful: bool) -> ForeignModel:
    if (folder / METADATA).is_file():
        return read_bundle(folder, orientation=orientation)
    if (folder / PLANS).is_file() or any(folder.glob(f"*/{PLANS}")):
        return read_nnunet(folder, folds=folds, orientation=orientation, faithful=faithful)
    raise ModelImportError(
        folder,
        f"is neither an nnU-Net v2 model folder ({PLANS}) nor a MONAI bundle ({METADATA}).",
        advice="Give the folder that holds one of these files.",
    )


def _read_labels(path: Path | None) -> dict[str, int] | None:
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(key, value) if isinstance(value, int) else (value, int(key)) for key, value in content.items()]
        return {str(organ): int(value) for organ, value in pairs if value != 0}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelImportError(path, f"is no label map ({error}).", advice="Give JSON: {organ: value}.") from error
