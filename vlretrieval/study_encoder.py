"""StudyEncoder: a study, its slices and its organs -> one vector for the whole and one for every organ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlretrieval.image_encoder import SliceNet, VisionEncoder, mlp
from vlretrieval.inputs import CHANNELS, ORGAN_NUMBERS, SCAN_NUMBERS, StudyBatch, slice_rows

_TOKEN = 48


@dataclass(frozen=True)
class StudyFeatures:
    """whole [B, D], organs [B, O, D], present [B, O]: whether an organ was found."""

    whole: Tensor
    organs: Tensor
    present: Tensor


class StudyEncoder(nn.Module):
    """What a study looks like, as a whole and organ by organ.

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
        self.slices = SliceNet(slice_rows(len(organs)))
        self.token = mlp(2 * ORGAN_NUMBERS, 64, _TOKEN) if organs else None
        seen = self.slices.output_dim + SCAN_NUMBERS + len(organs) * _TOKEN
        seen += 0 if self.vision is None else self.vision.output_dim
        self.norm = nn.LayerNorm(seen)
        self.whole = mlp(seen, 512, width, dropout=dropout)
        self.single = mlp(2 * ORGAN_NUMBERS + len(organs) + SCAN_NUMBERS, 256, width, dropout=dropout)

    def forward(self, batch: StudyBatch) -> StudyFeatures:
        """Features of a batch, not yet of unit length."""
        parts = [self.slices(batch.slices), batch.scan]
        if self.vision is not None:
            parts.append(self.vision(batch.volume))
        if self.token is not None:
            parts.append(self.token(batch.organs).flatten(1))
        whole = self.whole(self.norm(torch.cat(parts, dim=1)))
        return StudyFeatures(whole, self._organs(batch), batch.organs[:, :, 0] > 0)

    def _organs(self, batch: StudyBatch) -> Tensor:
        count, organs, _ = batch.organs.shape
        which = torch.eye(organs, device=batch.scan.device, dtype=batch.scan.dtype).expand(count, organs, organs)
        scan = batch.scan.unsqueeze(1).expand(count, organs, batch.scan.shape[1])
        return self.single(torch.cat([batch.organs, which, scan], dim=2))
