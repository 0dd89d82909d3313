"""Dice + cross-entropy for partial labels, counted over all ranks.

An organ that was not contoured in a case is *unknown* there: its voxels may carry the label "background". The
probabilities of background and of all unknown organs are merged before the loss, so that the network may find the
organ without being punished (marginal loss, Shi et al., Medical Image Analysis 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from medseg.training.distributed import all_sum


def merge_unknown(logits: Tensor, known: Tensor) -> Tensor:
    """Log-probabilities of one patch's known classes, the unknown ones folded into the background.

    Args:
        logits: [C, D, H, W].
        known: [C] bool; background is always known.

    Returns:
        [K, D, H, W] for the K known classes, in their order.
    """
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if bool(known.all()):
        return F.log_softmax(wide, dim=0)
    hidden = ~known
    hidden[0] = True  # background itself belongs to the merged class
    background = torch.logsumexp(wide[hidden], dim=0, keepdim=True)
    return F.log_softmax(torch.cat([background, wide[~hidden]]), dim=0)


@dataclass(frozen=True)
class Weights:
    """What the voxels of an organ weigh in cross-entropy.

    A thin organ, or one of low contrast, may get no hold: its Dice has no gradient while its probability is nil, and
    its few voxels cost little beside the background's.
    """

    classes: Tensor | None = None
    """[C] fixed weight of each class; all 1 where None."""
    neglected: float = 1.0
    """Further weight (at least 1) of an organ that the network gives nil inside; 1 once it is found there."""

    def of(self, counts: Tensor) -> Tensor:
        """[C] from the batch's `_counts` table: 1 + (neglected - 1) (1 - p)^4, p the organ's mean probability inside.

        Background is never neglected. The weights carry no gradient. In the manner of the focal loss (Lin et al., ICCV
        2017), for an organ as a whole: its hard voxels at the border count no more than its others.
        """
        _, overlap, _, volume = counts.detach()
        missed = 1 - (overlap / volume.clamp(min=1)).clamp(max=1)
        weights = 1 + (self.neglected - 1) * missed**4
        weights[0] = 1
        return weights if self.classes is None else weights * self.classes.to(weights)


def partial_dice_ce(
    logits: Tensor, target: Tensor, known: Tensor, weights: Weights | None = None, smooth: float = 1e-5
) -> Tensor:
    """Sum of marginal cross-entropy and batch soft Dice over the organs in the batch.

    The batch is that of all ranks: sums and counts are taken over them before anything is divided. An organ that no
    patch shows has no Dice: its share would be decided by `smooth` and push the organ out of the network for good.
    Cross-entropy sees its false alarms.

    Args:
        logits: [B, C, D, H, W].
        target: [B, D, H, W] int64; labels of unknown organs count as background.
        known: [B, C] bool.
        weights: of the organs' voxels in cross-entropy; all 1 where None.
        smooth: keeps Dice finite.
    """
    rows = [_counts(*patch) for patch in zip(logits, target, known, strict=True)]
    counts = all_sum(torch.stack(rows).sum(0))
    cost, overlap, total, volume = counts
    cross_entropy = (cost * (weights or Weights()).of(counts)).sum() / volume.sum()
    dice = (2 * overlap + smooth) / (total + smooth)
    there = (volume[1:] > 0).to(dice.dtype)
    return cross_entropy + ((1 - dice[1:]) * there).sum() / there.sum().clamp(min=1)


def _counts(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """[4, C] per class of one patch: cross-entropy of its voxels, overlap, probability + volume, volume."""
    log_p = merge_unknown(logits, known)
    kept = known.clone()
    kept[0] = True
    classes = kept.nonzero()[:, 0]
    place = torch.zeros_like(target[0, 0, 0]).repeat(len(known))  # of a class among the known ones; unknown: background
    place[classes] = torch.arange(len(classes), device=target.device)
    target = place[target]
    each = F.nll_loss(log_p[None], target[None], reduction="none").flatten()
    flat = target.flatten()
    volume = torch.bincount(flat, minlength=len(classes)).to(each.dtype)
    nil = torch.zeros_like(volume)
    cost, overlap = nil.index_add(0, flat, each), nil.index_add(0, flat, (-each).exp())
    total = log_p.exp().sum((1, 2, 3)) + volume
    table = torch.zeros(4, len(known), dtype=each.dtype, device=each.device)
    return table.index_copy(1, classes, torch.stack([cost, overlap, total, volume]))


def deep_supervision_loss(
    outputs: Tensor | Sequence[Tensor], target: Tensor, known: Tensor, weights: Weights | None = None
) -> Tensor:
    """`partial_dice_ce` over all heads, weights 1, 1/2, 1/4 ... normalised to one."""
    heads = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    shares = [0.5**n for n in range(len(heads))]
    total = torch.zeros((), device=target.device)
    for share, head in zip(shares, heads, strict=True):
        fitted = F.interpolate(target[:, None].float(), size=head.shape[2:], mode="nearest-exact")[:, 0].long()
        total = total + share / sum(shares) * partial_dice_ce(head, fitted, known, weights)
    return total
