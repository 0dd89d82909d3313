"""What this machine is, as far as it decides which backend is fastest and what a compiled network runs on."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch

from medseg.inference.backends.predictor import native_bf16
from medseg.runtime.provenance import processor_model


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
        "processor": processor_model() or platform.machine(),
        "bf16": native_bf16(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "versions": versions,
    }
