"""A tiny random U-Net as a real package, with logits of a size that shows differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medseg.models.card import InputSpec, NetworkSpec
from medseg.models.store import ModelPackage, load_model
from medseg.networks.catalogue import build_network
from tests.inference.planted import WINDOW_HU, threshold_card, write_package

PATCH = (16, 16, 8)
OPTIONS: dict[str, Any] = {"out_channels": 3, "channels": [4, 8], "deep_supervision": 1}


def tiny_package(folder: Path, **options: Any) -> ModelPackage:
    """A package of two levels and three channels with the statistics of a trained batch norm."""
    torch.manual_seed(3)
    spec = NetworkSpec(name="Optimized3DUNet", options=OPTIONS | options)
    network = build_network(spec.name, spec.options | {"deep_supervision": 0})
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(1, 1, *PATCH) * 4 - 1)
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    wanted = InputSpec(spacing_mm=(4.0, 4.0, 4.0), window_hu=WINDOW_HU, patch_size=PATCH, overlap_ratio=0.3)
    return load_model(write_package(folder, threshold_card(name="tiny", network=spec, input=wanted), weights))
