"""StudyEncoder: a study, its slices and its organs -> one vector for the whole and one for every organ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlretrieval.image_encoder import SliceNet, VisionEncoder, mlp
from vlretrieval.inputs import CHANNELS, ORGAN_NUMBERS, SCAN_NUMBERS, StudyBatch, slice_rows
from vlretrieval.numbers import BINS, Additive

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

    The whole is a sum of what each look says by itself (every number of the scan and of every organ, slices, coarse
    volume), so that a few hundred studies are not learned by heart.

    Args:
        organs: whose vectors are made, in this order; without any, only pixels are looked at.
        width: of the vectors.
        volume: whether the coarse volume is looked at.
        slices: whether the table of slices is looked at. Without both, numbers of scan and organs are all there is.
        dropout: share of hidden numbers that training forgets.
    """

    def __init__(
        self,
        organs: tuple[str, ...] = (),
        *,
        width: int = 256,
        volume: bool = True,
        slices: bool = True,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.organs, self.output_dim = organs, width
        self.vision = VisionEncoder("small", channels=CHANNELS) if volume else None
        self.by_volume = None if self.vision is None else _look(self.vision.output_dim, width, dropout)
        self.slices = SliceNet(slice_rows(len(organs))) if slices else None
        self.by_slices = None if self.slices is None else _look(self.slices.output_dim, width, dropout)
        self.by_scan = Additive((SCAN_NUMBERS,), width, dropout=dropout / 2)
        self.by_organ = Additive((len(organs), 2 * ORGAN_NUMBERS), width, dropout=dropout / 2) if organs else None
        numbers = 2 * ORGAN_NUMBERS * BINS + len(organs) + SCAN_NUMBERS
        self.single = mlp(numbers, 2 * _HIDDEN, width, dropout=dropout) if organs else None

    def forward(self, batch: StudyBatch) -> StudyFeatures:
        """Features of a batch, not yet of unit length."""
        whole = self.by_scan(batch.scan)
        if self.slices is not None and self.by_slices is not None:
            whole = whole + self._sometimes(self.by_slices(self.slices(batch.slices)))
        if self.vision is not None and self.by_volume is not None:
            whole = whole + self._sometimes(self.by_volume(self.vision(batch.volume)))
        if self.by_organ is not None:
            whole = whole + self.by_organ(batch.organs)
        return StudyFeatures(whole, self._each(batch), batch.organs[:, :, 0] > 0)

    def fit(self, scan: Tensor, organs: Tensor) -> None:
        """Learn the scales of all numbers from training studies: scan [S, N], organs [S, O, N]."""
        self.by_scan.encoding.fit(scan)
        if self.by_organ is not None:
            self.by_organ.encoding.fit(organs)

    def _each(self, batch: StudyBatch) -> Tensor:
        """[B, O, width]: every organ by itself, and how it was scanned."""
        count, organs, _ = batch.organs.shape
        if self.by_organ is None or self.single is None:
            return batch.scan.new_zeros(count, organs, self.output_dim)
        which = torch.eye(organs, device=batch.scan.device, dtype=batch.scan.dtype).expand(count, organs, organs)
        scan = batch.scan.unsqueeze(1).expand(count, organs, batch.scan.shape[1])
        out: Tensor = self.single(torch.cat([self.by_organ.encoding(batch.organs).flatten(2), which, scan], dim=2))
        return out

    def _sometimes(self, part: Tensor) -> Tensor:
        """In training a picture is left out now and then: what numbers say is learned from the numbers."""
        if not self.training:
            return part
        return part * (torch.rand(len(part), 1, device=part.device) >= _FORGOTTEN)


def _look(seen: int, width: int, dropout: float) -> nn.Sequential:
    """What one picture says: its numbers brought to one scale, some forgotten in training."""
    return nn.Sequential(nn.LayerNorm(seen), nn.Dropout(dropout), mlp(seen, _HIDDEN, width, dropout=dropout))
