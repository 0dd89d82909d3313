"""Segmentation as a task for the loop: patches in, Dice and cross-entropy for partial labels out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.networks.catalogue import build_network
from medseg.training.config import TrainConfig
from medseg.training.losses import deep_supervision_loss
from medseg.training.patches import Batch, PatchSampler
from medseg.training.task import Loss, Task

# What a resumed run may change, beside the loop's own: words and places.
FREE = {"name", "version", "index", "card", "loop"}


class SegmentationTask(Task[Batch]):
    """Trains a network of the catalogue on patches.

    Args:
        sampler: draws batches by number.
        config: the run's settings.
    """

    def __init__(self, sampler: PatchSampler, config: TrainConfig) -> None:
        self.sampler, self.config = sampler, config

    def build(self) -> nn.Module:
        """The network, its kernels laid out as convolutions on a CPU like them.

        Raises:
            ConfigError: the network does not exist, or the patches do not divide into its levels.
        """
        spec = self.config.network
        network = build_network(spec.name, spec.options | {"out_channels": self.sampler.num_classes})
        _check_patch(self.config, getattr(network, "stride", 1))
        return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def batch(self, number: int) -> Batch:
        """Batch `number` of the run."""
        return self.sampler.batch(number)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Loss over all heads of the network."""
        outputs = network(batch.image.to(memory_format=torch.channels_last_3d))
        weights = self.sampler.voxel_weights.to(batch.image.device)
        return Loss(deep_supervision_loss(outputs, batch.labels, batch.known, weights))

    def identity(self) -> dict[str, Any]:
        """Everything that decides the patches and the network."""
        return {key: value for key, value in self.config.model_dump(mode="json").items() if key not in FREE}


def _check_patch(config: TrainConfig, stride: int) -> None:
    if any(size % stride for size in config.patch_size):
        sizes = " x ".join(str(size) for size in config.patch_size)
        raise ConfigError(f"patch_size: {sizes} does not divide by {stride}, as the levels of the network need.")
