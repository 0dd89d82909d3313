"""Segmentation as a task for the loop: patches in, Dice and cross-entropy for partial labels out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference  # type: ignore[attr-defined]
from torch import nn

from medseg.errors import ConfigError
from medseg.imaging.volume import Array
from medseg.labels import LabelTable
from medseg.networks.catalogue import build_network
from medseg.preprocess.intensity import normalise
from medseg.training.cases import TrainingCase, data_digest
from medseg.training.config import TrainConfig
from medseg.training.distributed import all_values, everyones_share, wait_for_all
from medseg.training.losses import Weights, deep_supervision_loss
from medseg.training.patches import Batch, PatchSampler
from medseg.training.task import Loss, Task

_REFUSED = (RuntimeError, ValueError, TypeError, IndexError)  # what networks raise where a patch does not fit
AIR = -1.0  # as `normalise` makes it; what lies around a scan that is smaller than a patch
# What a resumed run may change, beside the loop's own: words, places, and how the package is used.
FREE = {
    "name",
    "version",
    "index",
    "card",
    "loop",
    "anatomy_check",
    "mirror_average",
    "small_batch",
    "cache",
    "tracking",
}


class SegmentationTask(Task[Batch]):
    """Trains a network of the catalogue on patches.

    Args:
        sampler: draws batches by number.
        config: the run's settings.
        validation: cases that are looked at on the way; none where empty.
    """

    def __init__(self, sampler: PatchSampler, config: TrainConfig, validation: Sequence[TrainingCase] = ()) -> None:
        self.sampler, self.config, self.validation = sampler, config, tuple(validation)

    def build(self) -> nn.Module:
        """The network, its kernels laid out as convolutions on a CPU like them.

        Raises:
            ConfigError: the network does not exist, or does not take the patches or give what is learned from.
        """
        check_network(self.config, self.sampler.num_classes)
        spec = self.config.network
        network = build_network(spec.name, spec.options | {"out_channels": self.sampler.num_classes})
        return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def batch(self, number: int) -> Batch:
        """Batch `number` of the run."""
        return self.sampler.batch(number)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Loss over all heads of the network."""
        alike = next(network.parameters()).dtype  # not that of the patches in fp64
        outputs = network(batch.image.to(alike, memory_format=torch.channels_last_3d))
        weights = Weights(self.sampler.voxel_weights.to(batch.image.device), self.config.neglected_weight)
        return Loss(deep_supervision_loss(outputs, batch.labels, batch.known, weights))

    def validate(self, network: nn.Module, step: int) -> dict[str, float]:
        """Mean Dice on the training grid, without the way back to the scans' own; ranks share the cases."""
        place = next(network.parameters()).device
        alike = next(network.parameters()).dtype
        rows: list[tuple[int, float]] = []
        for case in everyones_share(self.validation):
            image = normalise(torch.from_numpy(np.array(case.hu)).to(alike), self.config.window_hu)
            window = (self.config.patch_size, 1, network)
            around = {"overlap": self.config.overlap_ratio, "cval": AIR}
            logits = sliding_window_inference(image[None, None].to(place), *window, **around)
            rows += _dice(logits[0].argmax(0).cpu().numpy(), case)
        wait_for_all()  # shares differ, and a collective of the training would give up
        everyones = [row for rank in all_values(rows) for row in rank]
        return _means(everyones, self.sampler.labels)

    @cached_property
    def data_sha256(self) -> str:
        """Of all scans and labels that are learned from."""
        return data_digest(self.sampler.cases)

    def identity(self) -> dict[str, Any]:
        """Everything that decides the patches and the network; cases in their order, which the numbers draw from."""
        settings = {key: value for key, value in self.config.model_dump(mode="json").items() if key not in FREE}
        return settings | {
            "label table": self.sampler.labels.names,
            "training cases": [case.id for case in self.sampler.cases],
            "scans or labels of the training cases": self.data_sha256,
        }


def check_network(config: TrainConfig, num_classes: int) -> None:
    """Let the config's network take one patch: what MONAI's networks want shows only when they run.

    Args:
        config: names the network and the patch.
        num_classes: background included.

    Raises:
        ConfigError: it does not exist, or does not take the patches or give what is learned from.
    """
    first = _first_head(config, num_classes)
    wanted = (1, num_classes, *config.patch_size)
    if tuple(first.shape) != wanted:
        raise ConfigError(
            f"Network {config.network.name} gives {tuple(first.shape)} for a patch; learned is from {wanted}.",
            advice="Leave out its deep_supervision, or take Optimized3DUNet.",
        )


def _dice(found: Array, case: TrainingCase) -> list[tuple[int, float]]:
    """(organ, Dice) of the organs that were contoured and are there."""
    shown = [int(value) for value in np.flatnonzero(case.known)[1:] if value in case.places]
    masks = [(value, found == value, case.labels == value) for value in shown]
    return [(value, 2 * float((a & b).sum()) / float(a.sum() + b.sum())) for value, a, b in masks]


def _means(rows: Sequence[tuple[int, float]], labels: LabelTable) -> dict[str, float]:
    """Mean of each organ, then the mean of those: an organ that is seldom contoured counts like the others."""
    by_organ = {label.name: [dice for value, dice in rows if value == label.value] for label in labels}
    means = {name: sum(dice) / len(dice) for name, dice in by_organ.items() if dice}
    return {"dice": sum(means.values()) / len(means), **means} if means else {}


def _check_patch(config: TrainConfig, stride: int) -> None:
    if any(size % stride for size in config.patch_size):
        sizes = " x ".join(str(size) for size in config.patch_size)
        raise ConfigError(f"patch_size: {sizes} does not divide by {stride}, as the levels of the network need.")


def _first_head(config: TrainConfig, num_classes: int) -> torch.Tensor:
    try:
        with suppress(*_REFUSED):  # which may be only something that the meta device cannot do
            return _passed(config, num_classes, "meta")  # no numbers, no time
        return _passed(config, num_classes, "cpu")
    except _REFUSED as error:
        sizes = " x ".join(map(str, config.patch_size))
        said = f"Network {config.network.name} does not take one channel of patch_size {sizes}: {error}."
        raise ConfigError(said) from error


@torch.no_grad()
def _passed(config: TrainConfig, num_classes: int, device: str) -> torch.Tensor:
    spec = config.network
    with torch.device(device):
        network = build_network(spec.name, spec.options | {"out_channels": num_classes}).train()
        _check_patch(config, getattr(network, "stride", 1))
        outputs = network(torch.zeros(1, 1, *config.patch_size))
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]
