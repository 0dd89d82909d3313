"""Patches: where they lie, and how they are changed. One seed, one patch.

Sampling is stateless: patch n of a run depends on (seed, n) alone, so that a resumed run
sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import (  # type: ignore[attr-defined]
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
)
from torch import Tensor

from medseg.errors import ConfigError, DataError
from medseg.imaging.volume import Array
from medseg.labels import LabelTable
from medseg.preprocess.intensity import normalise
from medseg.training.artificial import add_couch, artificial_body
from medseg.training.cases import TrainingCase
from medseg.training.config import TrainConfig


@dataclass(frozen=True)
class Batch:
    """image [B, 1, i, j, k] float32, labels [B, i, j, k] int64, known [B, classes] bool."""

    image: Tensor
    labels: Tensor
    known: Tensor
    ids: tuple[str, ...]


Patch = tuple[Tensor, Tensor, Tensor, str]
"""image [1, i, j, k], labels [i, j, k], known [classes], case id."""


def stack(patches: Sequence[Patch]) -> Batch:
    """Patches -> a batch."""
    images, labels, known, ids = zip(*patches, strict=True)
    return Batch(torch.stack(images), torch.stack(labels), torch.stack(known), tuple(ids))


class PatchSampler:
    """Draws augmented training patches from cases held in memory.

    Args:
        cases: all training cases.
        config: sizes, window and augmentation.
        labels: the dataset's label table; sides trade places when a patch is mirrored.

    Raises:
        DataError: no cases.
        ConfigError: an open-ended organ that the label table lacks, or one side of a pair where patches are mirrored.
    """

    def __init__(
        self,
        cases: Sequence[TrainingCase],
        config: TrainConfig,
        labels: LabelTable,
    ) -> None:
        if not cases:
            raise DataError("There are no training cases.", advice="Give cases of the index the split `train`.")
        _check_names(labels, config)
        self.cases = list(cases)
        self.config, self.labels = config, labels
        self.num_classes = len(cases[0].known)
        _check_sides(labels, config)
        self.swap = np.arange(self.num_classes, dtype=np.uint8)
        for a, b in labels.mirror_pairs():
            self.swap[[a, b]] = b, a
        self.open_ended = [labels[name].value for name in config.open_ended]
        draws = self._per_class(labels, config.organ_weights)
        draws[0] = 0
        if not draws.any():
            raise ConfigError("organ_weights: every organ has the weight 0, so that none would be drawn.")
        self.organ_weights = draws / draws.sum()
        self.voxel_weights = torch.tensor(self._per_class(labels, config.voxel_weights), dtype=torch.float32)
        self.by_class = {
            value: [case for case in self.cases if value in case.places] for value in range(self.num_classes)
        }
        self.spatial = self._spatial()
        self.intensity = self._intensity()

    def _per_class(self, labels: LabelTable, weights: Mapping[str, float]) -> Array:
        """[classes]; 1 for classes that are not named."""
        by_class = np.ones(self.num_classes)
        for label in labels:
            by_class[label.value] = weights.get(label.name, 1.0)
        return by_class

    def _spatial(self) -> Compose:
        augment = self.config.augment
        angle = np.deg2rad(augment.rotate_deg)
        # MONAI's scale maps output to input: 0.8 shows 80 % of the extent, an enlarged patient.
        low, high = augment.scale[0] - 1, augment.scale[1] - 1
        return Compose(
            RandAffined(
                keys=["image", "labels"],
                prob=1.0,
                rotate_range=(angle, angle, angle),
                scale_range=((low, high),) * 3,
                spatial_size=self.config.patch_size,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            )
        )

    def _intensity(self) -> Compose:
        augment = self.config.augment
        return Compose(
            [
                RandGaussianSmoothd("image", *[(0.3, augment.blur_voxels)] * 3, prob=0.3),
                RandGaussianNoised("image", prob=0.4, std=augment.noise_hu),
                RandShiftIntensityd("image", offsets=augment.shift_hu, prob=0.4),
                RandScaleIntensityd("image", factors=0.1, prob=0.3),
                RandSimulateLowResolutiond("image", prob=augment.low_resolution, zoom_range=(0.5, 1.0)),
                RandAdjustContrastd("image", prob=0.15, gamma=(0.8, 1.25), retain_stats=True),
            ]
        )

    def batch(self, number: int) -> Batch:
        """Batch `number` of the run."""
        first = number * self.config.batch_size
        return stack([self.patch(first + n) for n in range(self.config.batch_size)])

    def patch(self, number: int) -> Patch:
        """Patch `number` of the run."""
        rng = np.random.default_rng([self.config.loop.seed, number])
        if rng.random() < self.config.augment.artificial_body:
            return self._finished(*self._artificial(rng), rng)
        return self.patch_at(*self.place(rng), rng)

    def patch_at(self, case: TrainingCase, centre: Array, rng: np.random.Generator) -> Patch:
        """A changed patch around a voxel of a case."""
        return self._finished(*self._changed(case, centre, rng), rng)

    def _finished(self, hu: Array, labels: Array, known: Array, name: str, rng: np.random.Generator) -> Patch:
        if rng.random() < self.config.augment.couch:
            hu = add_couch(hu, rng)
        self.intensity.set_random_state(int(rng.integers(2**31)))
        out = self.intensity({"image": torch.from_numpy(hu)[None]})
        # A plain tensor: MONAI's own subclass costs time in every layer, and cannot be compiled.
        image = normalise(torch.as_tensor(out["image"]).as_subclass(Tensor).float(), self.config.window_hu)
        return image, torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(known), name

    def _artificial(self, rng: np.random.Generator) -> tuple[Array, Array, Array, str]:
        known = np.ones(self.num_classes, dtype=bool)
        known[self.open_ended] = False  # a trunk has a cord, too
        shape = self.config.patch_size
        return artificial_body(shape, rng), np.zeros(shape, np.uint8), known, "artificial"

    def _changed(self, case: TrainingCase, centre: Array, rng: np.random.Generator) -> tuple[Array, Array, Array, str]:
        turned = rng.random() < self.config.augment.affine
        size = [int(np.ceil(side * 1.5)) if turned else side for side in self.config.patch_size]
        hu = crop(case.hu, centre, size, -1024).astype(np.float32)
        labels, known = crop(case.labels, centre, size, 0), case.known
        if rng.random() < self.config.augment.mirror_left_right:
            hu, labels, known = hu[::-1].copy(), self.swap[labels[::-1]], known[self.swap]
        if turned:
            hu, labels = self._turned(hu, labels, rng)
        return hu, labels, known.copy(), case.id

    def _turned(self, hu: Array, labels: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """The middle of a larger block, rotated and scaled."""
        self.spatial.set_random_state(int(rng.integers(2**31)))
        out = self.spatial({"image": torch.from_numpy(hu)[None], "labels": torch.from_numpy(labels)[None].float()})
        return out["image"][0].numpy(), out["labels"][0].numpy()

    def place(self, rng: np.random.Generator) -> tuple[TrainingCase, Array]:
        """A case and a patch centre: near an organ drawn by weight, or anywhere in a body."""
        centred = rng.random() < self.config.foreground_share
        wanted = int(rng.choice(self.num_classes, p=self.organ_weights)) if centred else 0
        cases = self.by_class[wanted] or self.cases
        case = cases[rng.integers(len(cases))]
        where = case.places.get(wanted, case.places[0])
        jitter = (rng.random(3) - 0.5) * 0.6 * np.array(self.config.patch_size)
        return case, np.round(where[rng.integers(len(where))] + jitter).astype(int)


def _check_names(labels: LabelTable, config: TrainConfig) -> None:
    """A misspelt organ would be left as it is, without a word."""
    for setting in ("open_ended", "organ_weights", "voxel_weights"):
        if strangers := sorted(set(getattr(config, setting)) - set(labels.names)):
            listed, known = ", ".join(strangers), ", ".join(labels.names)
            raise ConfigError(f"{setting} names organs that the dataset lacks: {listed}.", advice=f"It has: {known}.")


def _check_sides(labels: LabelTable, config: TrainConfig) -> None:
    """A left organ without its right one would be taught on both sides."""
    mirrored = config.augment.mirror_left_right > 0 or config.mirror_average
    if mirrored and (alone := labels.unpaired()):
        raise ConfigError(
            f"Patches are mirrored, and these organs have no partner on the other side: {', '.join(alone)}.",
            advice="Name pairs NAME_left and NAME_right, or set augment.mirror_left_right: 0, mirror_average: false.",
        )


def crop(array: Array, centre: Array, size: Sequence[int], fill: float) -> Array:
    """A block of `size` around `centre`, filled up where it leaves the array."""
    out = np.full(size, fill, dtype=array.dtype)
    low = np.asarray(centre) - np.array(size) // 2
    source = [slice(max(0, a), max(0, min(n, a + s))) for a, s, n in zip(low, size, array.shape, strict=True)]
    target = [slice(max(0, -a), max(0, -a) + s.stop - s.start) for a, s in zip(low, source, strict=True)]
    if all(s.stop > s.start for s in source):
        out[tuple(target)] = array[tuple(source)]
    return out
