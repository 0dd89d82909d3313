"""StudyEncoder: a study, its slices and its organs -> one vector for the whole and one for every organ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlretrieval.image_encoder import SliceNet, VisionEncoder, mlp
from vlretrieval.inputs import CHANNELS, ORGAN_NUMBERS, SCAN_NUMBERS, StudyBatch, slice_rows

_HIDDEN = 128
_FORGOTTEN = 0.3


@dataclass(frozen=True)
class StudyFeatures:
    """whole [B, D], organs [B, O, D], present [B, O]: whether an organ was found."""

    whole: Tensor
    organs: Tensor
    present: Tensor


class StudyEncoder(nn.Module):
    """What a study looks like, as a whole and organ by organ.

    The whole is a sum of what each look says by itself (scan, slices, every organ, coarse volume), so that a few
    hundred studies are not learned by heart, and every number of it is held between -1 and 1: a search adds up what a
    sentence's words find, and one thing that is very much so must not outweigh another that is not.

    Args:
        organs: whose vectors are made, in this order; without any, only pixels are looked at.
        width: of the vectors.
        volume: whether the coarse volume is looked at, beside the table of slices.
        dropout: share of hidden numbers that training forgets.
    """

    def __init__(
        self, organs: tuple[str, ...] = (), *, width: int = 256, volume: bool = True, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.organs, self.output_dim = organs, width
        self.vision = VisionEncoder("small", channels=CHANNELS) if volume else None
        self.by_volume = None if self.vision is None else _look(self.vision.output_dim, width, dropout)
        self.slices = SliceNet(slice_rows(len(organs)))
        self.by_slices = _look(self.slices.output_dim, width, dropout)
        self.by_scan = mlp(SCAN_NUMBERS, 2 * _HIDDEN, width, dropout=dropout / 2)
        numbers = 2 * ORGAN_NUMBERS + len(organs)
        self.by_organ = mlp(numbers, 2 * _HIDDEN, width, dropout=dropout / 2) if organs else None
        self.single = mlp(numbers + SCAN_NUMBERS, 2 * _HIDDEN, width, dropout=dropout)

    def forward(self, batch: StudyBatch) -> StudyFeatures:
        """Features of a batch, not yet of unit length."""
        whole = self.by_scan(batch.scan) + self._sometimes(self.by_slices(self.slices(batch.slices)))
        if self.vision is not None and self.by_volume is not None:
            whole = whole + self._sometimes(self.by_volume(self.vision(batch.volume)))
        count, organs, _ = batch.organs.shape
        which = torch.eye(organs, device=batch.scan.device, dtype=batch.scan.dtype).expand(count, organs, organs)
        tokens = torch.cat([batch.organs, which], dim=2)
        if self.by_organ is not None:
            whole = whole + self.by_organ(tokens).sum(dim=1)
        scan = batch.scan.unsqueeze(1).expand(count, organs, batch.scan.shape[1])
        single = self.single(torch.cat([tokens, scan], dim=2))
        return StudyFeatures(torch.tanh(whole), single, batch.organs[:, :, 0] > 0)

    def _sometimes(self, part: Tensor) -> Tensor:
        """In training a picture is left out now and then: what numbers say is learned from the numbers."""
        if not self.training:
            return part
        return part * (torch.rand(len(part), 1, device=part.device) >= _FORGOTTEN)


def _look(seen: int, width: int, dropout: float) -> nn.Sequential:
    """What one picture says: its numbers brought to one scale, some forgotten in training."""
    return nn.Sequential(nn.LayerNorm(seen), nn.Dropout(dropout), mlp(seen, _HIDDEN, width, dropout=dropout))
