"""What this machine is, as far as it decides which backend is fastest and what a compiled network runs on."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from medseg.inference.backends.predictor import native_bf16


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def machine_facts() -> dict[str, Any]:
    """What decides which backend is fastest: processor, threads, GPU, versions of the libraries."""
    versions = {}
    for name in ("medseg", "torch", "openvino", "onnxruntime", "onnxruntime-gpu"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "processor": _processor(),
        "bf16": native_bf16(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "versions": versions,
    }
