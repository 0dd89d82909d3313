"""From data to a model package: the loop, the tasks, and the specification's names, loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.training.loaders import VolumeDataLoader as VolumeDataLoader
    from medseg.training.precision import AutoMixedPrecision as AutoMixedPrecision
    from medseg.training.profiler import TrainingProfiler as TrainingProfiler

_HOMES = {
    "VolumeDataLoader": "medseg.training.loaders",
    "AutoMixedPrecision": "medseg.training.precision",
    "TrainingProfiler": "medseg.training.profiler",
}
__all__ = ["AutoMixedPrecision", "TrainingProfiler", "VolumeDataLoader"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medseg.training' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
