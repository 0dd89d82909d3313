"""The segmentation task on batches that are there already, so that a benchmark measures the network and no loader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from medseg.labels import LabelTable
from medseg.training.cases import load_cases, read_index
from medseg.training.config import PhantomConfig, TrainConfig, checked
from medseg.training.patches import Batch, PatchSampler
from medseg.training.phantoms import write_phantoms
from medseg.training.segmentation import SegmentationTask

SMOKE = {"channels": [8, 16, 32], "norm": "batch", "deep_supervision": 1}
SHIPPED = {"channels": [16, 32, 64, 128, 192], "norm": "batch", "deep_supervision": 2}


class FixedBatches(SegmentationTask):
    """Patches of computed bodies, made once; step n sees batch n modulo their number."""

    def __init__(self, sampler: PatchSampler, config: TrainConfig, count: int) -> None:
        super().__init__(sampler, config)
        self.batches: Sequence[Batch] = [sampler.batch(number) for number in range(count)]

    def batch(self, number: int) -> Batch:
        """A batch that is there."""
        return self.batches[number % len(self.batches)]

    def validate(self, network: nn.Module, step: int) -> dict[str, float]:
        """Nothing is looked at on the way."""
        return {}


def fixed_batches(options: dict[str, Any], patch: int, count: int) -> FixedBatches:
    """The task with a network of these options and patches of `patch` voxels a side."""
    given = {
        "name": "benchmark", "index": "none", "spacing_mm": [3, 3, 3], "window_hu": [-300, 900],
        "patch_size": [patch] * 3, "network": {"options": options}, "batch_size": 2,
        "augment": {"mirror_left_right": 0, "artificial_body": 0},
    }  # fmt: skip
    config = checked(given)
    with TemporaryDirectory() as folder:
        dataset = read_index(write_phantoms(Path(folder), PhantomConfig(train=4, validation=0)))
        cases = list(load_cases(dataset.of("train"), dataset.labels, config.spacing_mm))
    return FixedBatches(PatchSampler(cases, config, LabelTable.from_names(dataset.labels)), config, count)
