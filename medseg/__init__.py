"""medseg: CT volume in, named organs on the same grid out.

    import medseg
    result = medseg.segment("study/")     # DICOM folder, zip, .nii.gz, .nrrd, .mha
    result.save("out/")                   # mask, measurements, preview, run report

Names are loaded when first used, so that `import medseg` stays quick and brings no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.api import forecast as forecast
    from medseg.api import segment as segment
    from medseg.imaging import Finding as Finding
    from medseg.imaging import Geometry as Geometry
    from medseg.imaging import Volume as Volume
    from medseg.imaging import read_volume as read_volume
    from medseg.models.store import list_models as list_models
    from medseg.models.store import load_model as load_model
    from medseg.results.segmentation import Segmentation as Segmentation

__version__ = "0.1.0"

_HOMES = {
    "segment": "medseg.api",
    "forecast": "medseg.api",
    "read_volume": "medseg.imaging",
    "Volume": "medseg.imaging",
    "Geometry": "medseg.imaging",
    "Finding": "medseg.imaging",
    "Segmentation": "medseg.results.segmentation",
    "list_models": "medseg.models.store",
    "load_model": "medseg.models.store",
    "errors": "",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medseg' has no attribute {name!r}")
    if not _HOMES[name]:
        return importlib.import_module(f"medseg.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
