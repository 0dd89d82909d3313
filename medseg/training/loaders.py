"""VolumeDataLoader: the specification's loader, a whole epoch of patches from volumes.

Patches lie on a grid that overlaps, as windows do when the network is used, so that an epoch shows every part of every
body; patches around organs are mixed in. `medseg train` draws patches by number instead (`PatchSampler`), which needs
no epochs to resume; both cut and change patches by the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.imaging.volume import Array
from medseg.labels import LabelTable
from medseg.preprocess.intensity import normalise
from medseg.training.cases import BODY_HU, TrainingCase
from medseg.training.config import AugmentConfig, checked
from medseg.training.patches import Batch, Patch, PatchSampler, crop, stack


class VolumeDataLoader:
    """Batches of patches from volumes.

    Args:
        batch_size: patches a batch.
        patch_size: voxels along i, j, k.
        overlap_ratio: by how much neighbouring patches of the grid overlap; inference uses the same number.
        foreground_share: share of patches that are centred near an organ, in addition to the grid.
        augment: how patches are changed; None leaves them as they are.
        window_hu: what becomes -1 ... 3, as everywhere here.
        seed: decides order, places and changes.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(
        self,
        batch_size: int = 16,
        patch_size: tuple[int, int, int] = (128, 128, 64),
        overlap_ratio: float = 0.3,
        *,
        foreground_share: float = 0.5,
        augment: AugmentConfig | None = None,
        window_hu: tuple[float, float] = (-300, 900),
        seed: int = 0,
    ) -> None:
        own: dict[str, Any] = {"augment": augment or AugmentConfig(mirror_left_right=0), "loop": {"seed": seed}}
        own |= {"batch_size": batch_size, "patch_size": patch_size, "overlap_ratio": overlap_ratio}
        own |= {"foreground_share": foreground_share, "window_hu": window_hu}
        self.config = checked({"name": "loader", "index": Path(), "spacing_mm": (1, 1, 1)} | own, "VolumeDataLoader")
        self.augmented = augment is not None

    def batches(self, cases: Sequence[TrainingCase], labels: LabelTable, epoch: int = 0) -> Iterator[Batch]:
        """One epoch, in an order of its own; the last batch may be smaller.

        Args:
            cases: volumes on the training grid, all of one spacing.
            labels: their label table.
            epoch: another number, another order and other changes.

        Raises:
            DataError: no cases.
        """
        sampler = PatchSampler(cases, self.config.model_copy(update={"foreground_share": 1.0}), labels)
        rng = np.random.default_rng([self.config.loop.seed, epoch])
        places = [(case, centre) for case in cases for centre in self.grid(case)]
        share = min(self.config.foreground_share, 0.95)
        extra = round(len(places) * share / (1 - share))
        places += [sampler.place(rng) for _ in range(extra)]
        order = rng.permutation(len(places))
        for first in range(0, len(order), self.config.batch_size):
            chosen = [places[n] for n in order[first : first + self.config.batch_size]]
            yield stack([self._patch(sampler, case, centre, rng) for case, centre in chosen])

    def grid(self, case: TrainingCase) -> list[Array]:
        """Centres of the overlapping patches that cover the case, without those that show nothing but air."""
        axes = [_starts(*sizes, self.config.overlap_ratio) for sizes in zip(case.hu.shape, self._size, strict=True)]
        corners = [np.array(corner) for corner in product(*axes)]
        body = case.hu > BODY_HU
        blocks = [tuple(slice(a, a + n) for a, n in zip(corner, self._size, strict=True)) for corner in corners]
        half = np.array(self._size) // 2
        return [corner + half for corner, block in zip(corners, blocks, strict=True) if body[block].any()]

    @property
    def _size(self) -> tuple[int, int, int]:
        return self.config.patch_size

    def _patch(self, sampler: PatchSampler, case: TrainingCase, centre: Array, rng: np.random.Generator) -> Patch:
        if self.augmented:
            return sampler.patch_at(case, centre, rng)
        hu = torch.from_numpy(crop(case.hu, centre, self._size, -1024)).float()
        labels = torch.from_numpy(crop(case.labels, centre, self._size, 0).astype(np.int64))
        return normalise(hu[None], self.config.window_hu), labels, torch.from_numpy(case.known.copy()), case.id


def _starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of patches along one axis: the last one ends with the volume, and a small volume has one."""
    step = max(1, int(patch * (1 - overlap)))
    last = max(0, size - patch)
    return sorted({*range(0, last, step), last})
