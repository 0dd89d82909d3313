"""A trained network -> a model package: weights, card, hashes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg.imaging.emit import emit_text, sha256_file
from medseg.labels import LabelTable
from medseg.models.card import Anatomy, InputSpec, ModelCard, NetworkSpec
from medseg.models.store import CARD, WEIGHTS
from medseg.models.tensors import emit_tensors
from medseg.runtime.provenance import now, versions
from medseg.training.anatomy_prior import build_anatomy
from medseg.training.cases import TrainingCase, data_digest
from medseg.training.config import TrainConfig


def write_package(
    folder: Path, network: nn.Module, config: TrainConfig, labels: LabelTable, cases: Sequence[TrainingCase]
) -> ModelCard:
    """Write weights and a card without scores; `add_metrics` completes it."""
    weights = {name: _compact(tensor) for name, tensor in network.state_dict().items() if "deep_heads" not in name}
    emit_tensors(folder / WEIGHTS, weights)
    card = ModelCard(
        name=config.name,
        version=config.version,
        title=config.card.title or config.name,
        description=config.card.description,
        labels=labels.to_json(),
        field_of_view=config.card.field_of_view,
        intended_use=config.card.intended_use,
        limits=list(config.card.limits),
        licence=config.card.licence,
        network=NetworkSpec(
            name=config.network.name, options=config.network.options | {"out_channels": len(cases[0].known)}
        ),
        input=InputSpec(
            spacing_mm=config.spacing_mm,
            window_hu=config.window_hu,
            patch_size=config.patch_size,
            overlap_ratio=config.overlap_ratio,
            mirror_average=config.mirror_average,
        ),
        anatomy=_anatomy(cases, labels, config),
        training=_provenance(config, cases),
        files={WEIGHTS: sha256_file(folder / WEIGHTS)},
    )
    return _write_card(folder, card)


def _anatomy(cases: Sequence[TrainingCase], labels: LabelTable, config: TrainConfig) -> Anatomy | None:
    if not config.anatomy_check:
        return None
    anatomy = build_anatomy(cases, labels, config.spacing_mm, config.open_ended)
    ends = {"upper_end": config.card.upper_end, "lower_end": config.card.lower_end}
    return anatomy and anatomy.model_copy(update=ends)


def add_metrics(folder: Path, card: ModelCard, metrics: dict[str, Any]) -> ModelCard:
    """Write the card again with its scores."""
    return _write_card(folder, card.model_copy(update={"metrics": metrics}))


def _write_card(folder: Path, card: ModelCard) -> ModelCard:
    emit_text(folder / CARD, card.model_dump_json(indent=2) + "\n")
    return card


def _compact(tensor: Tensor) -> Tensor:
    # Convolution kernels in half precision; norms and biases, which are few, stay exact.
    tensor = tensor.detach().cpu()
    kernel = tensor.ndim > 1 and tensor.is_floating_point()
    # A copy, for networks that know one tensor by two names (DynUNet): safetensors refuses shared memory.
    return (tensor.to(torch.float16) if kernel else tensor).contiguous().clone()


def _provenance(config: TrainConfig, cases: Sequence[TrainingCase]) -> dict[str, Any]:
    settings = config.model_dump(mode="json", exclude={"card", "index", "cache", "tracking"})
    return {
        "finished": now(),
        "cases": len(cases),
        "data_sha256": data_digest(cases),
        "sources": list(config.card.sources),
        "config": settings | ({} if config.index is None else {"index": config.index.name}),
        "versions": versions(),
    }
