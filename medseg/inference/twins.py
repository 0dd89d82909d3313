"""Mirror images of a window: the mean over them, taken only where it can matter.

Test-time mirroring costs other tools two to eight times the network's work on every window. Most windows of a scan hold
no organ, and the network says so at once and surely; there the mirror images are left out. Near its rim a window is
often wrong; there its neighbours count for more in the blend, so that a rim alone is no reason either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import torch
from torch import Tensor

from medseg.inference.streaming import Predict, Refine
from medseg.labels import LabelTable
from medseg.models.card import InputSpec

SURE = 5.0  # logits: an organ's probability is below 0.7 %
COUNTS = 0.05  # share of the blend below which a window's voxel does not ask for mirror images
_FIRST = 2  # of [B, C, i, j, k] in RAS order: left and right


@dataclass(frozen=True)
class Twin:
    """A mirror image of a window that is segmented as well.

    Attributes:
        axes: of [B, C, i, j, k], along which it is mirrored.
        channels: for each channel the one that it becomes; None where all stay what they are.
    """

    axes: tuple[int, ...]
    channels: tuple[int, ...] | None = None

    def logits(self, network: Predict, tiles: Tensor) -> Tensor:
        """What the network says of the mirror images of `tiles`, put back."""
        out = network(tiles.flip(self.axes))
        return (out if self.channels is None else out[:, list(self.channels)]).flip(self.axes)


def twins_of(spec: InputSpec, labels: LabelTable) -> tuple[Twin, ...]:
    """The mirror images that a model's card asks for."""
    if spec.mirror_average:
        return (Twin((_FIRST,), _swapped_channels(labels)),)
    axes = [axis + _FIRST for axis in spec.mirror_axes]
    counts = range(2, len(axes) + 1, 2) if spec.mirror_even else range(1, len(axes) + 1)
    return tuple(Twin(flip) for flip in chain.from_iterable(combinations(axes, n) for n in counts))


def _swapped_channels(labels: LabelTable) -> tuple[int, ...]:
    channels = list(range(len(labels) + 1))
    for right, left in labels.mirror_pairs():
        channels[right], channels[left] = left, right
    return tuple(channels)


def mean_of_twins(network: Predict, twins: Sequence[Twin], sure: float = SURE) -> Refine | None:
    """The mean over a window and its mirror images, for `stream_logits`; None without any.

    As soon as the mean shows background, surer than `sure` logits, wherever the window counts, the images that are left
    are not computed: they would have to contradict it by more than that to change a label. `math.inf` computes all.
    """

    @torch.inference_mode()
    def refine(tiles: Tensor, logits: Tensor, shares: Tensor) -> Tensor:
        total, seen = logits.clone(), torch.ones(len(logits), 1, 1, 1, 1)
        unsure = list(range(len(logits)))
        for twin in twins:
            unsure = [n for n in unsure if not _is_sure(total[n] / seen[n], shares[n], sure)]
            if not unsure:
                break
            total[unsure] += twin.logits(network, tiles[unsure])
            seen[unsure] += 1
        return total / seen

    return refine if twins else None


def _is_sure(logits: Tensor, share: Tensor, sure: float) -> bool:
    """Whether no voxel of [C, i, j, k] that counts comes within `sure` of an organ; False where none counts.

    Windows that overlap by nearly all of themselves share every voxel with so many others.
    """
    counting = (logits[1:].amax(dim=0) - logits[0])[share > COUNTS]
    return len(counting) > 0 and bool(counting.amax() < -sure)
