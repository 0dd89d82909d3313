"""NumberEncoding: measured numbers as places on a scale, so that a linear layer can ask for what lies in the middle.

Piecewise linear encoding (Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", 2022):
the scale of every number is cut into bins that hold equally many training studies; a number fills the bins below it,
and its own in part. A "medium" neck is then a weighted sum, which a few hundred studies suffice to learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

BINS = 12
_NARROW = 1e-6


class NumberEncoding(nn.Module):
    """[B, *shape] numbers -> [B, *shape, BINS] between 0 and 1.

    Args:
        shape: of one study's numbers. Until `fit` was called every scale reaches from -3 to 3.
    """

    edges: Tensor

    def __init__(self, *shape: int, bins: int = BINS) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("edges", torch.linspace(-3, 3, bins + 1).expand(*shape, bins + 1).contiguous())

    @torch.no_grad()
    def fit(self, numbers: Tensor) -> None:
        """Cut the scales by what training studies [S, *shape] hold."""
        shares = torch.linspace(0, 1, self.bins + 1, dtype=numbers.dtype, device=numbers.device)
        self.edges.copy_(torch.quantile(numbers, shares, dim=0).movedim(0, -1))

    def forward(self, numbers: Tensor) -> Tensor:
        """How far each bin is filled; a bin without width is a step."""
        low, width = self.edges[..., :-1], self.edges.diff(dim=-1)
        return ((numbers.unsqueeze(-1) - low) / width.clamp(min=_NARROW)).clamp(0, 1)


class Additive(nn.Module):
    """[B, *shape] numbers -> [B, width]: a sum of one learned curve a number (a generalised additive model).

    Args:
        shape: of one study's numbers.
        width: of the vector.
        dropout: share of the filled bins that training forgets.
    """

    def __init__(self, shape: Sequence[int], width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoding = NumberEncoding(*shape)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.encoding.edges[..., 1:].numel(), width)

    def forward(self, numbers: Tensor) -> Tensor:
        """The sum."""
        out: Tensor = self.linear(self.dropout(self.encoding(numbers).flatten(1)))
        return out
