"""What nnU-Net's own library says of two small networks: names, shapes and logits (data/*.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.models.importers.planted_weights import planted_tensor

FACTS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "data").glob("*unet.json"))
}
for _facts in FACTS.values():
    _facts["network"] = _facts["architecture"]["network_class_name"].rpartition(".")[2]


def theirs(facts: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The state dict as nnU-Net stores it: modules that are reachable by several ways appear several times."""
    return {
        name: planted_tensor(facts["same_as"].get(name, name), shape) for name, shape in facts["parameters"].items()
    }


def strip(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each parameter once, without the helper heads of deep supervision: written by hand, as the importer's check."""
    kept = {k: v for k, v in weights.items() if "all_modules" not in k and not k.startswith("decoder.encoder.")}
    last = max(int(name.split(".")[2]) for name in kept if "seg_layers" in name)
    out = {k.replace(f"seg_layers.{last}", "head"): v for k, v in kept.items()}
    return {k: v for k, v in out.items() if "seg_layers" not in k}


def ours(facts: dict[str, Any]) -> dict[str, Any]:
    """Options of our network for the same architecture."""
    kwargs = facts["architecture"]["arch_kwargs"]
    own = (
        {"convs": kwargs["n_conv_per_stage"]}
        if "n_conv_per_stage" in kwargs
        else {"blocks": kwargs["n_blocks_per_stage"]}
    )
    return own | {
        "features": kwargs["features_per_stage"],
        "kernels": kwargs["kernel_sizes"],
        "strides": kwargs["strides"],
        "decoder_convs": kwargs["n_conv_per_stage_decoder"],
        "norm_options": kwargs["norm_op_kwargs"],
        "out_channels": facts["classes"],
    }
