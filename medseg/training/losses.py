"""Dice + cross-entropy for partial labels.

An organ that was not contoured in a case is *unknown* there: its voxels may carry the
label "background". The probabilities of background and of all unknown organs are merged
before the loss, so that the network may find the organ without being punished (marginal
loss, Shi et al., Medical Image Analysis 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def merge_unknown(logits: Tensor, known: Tensor) -> Tensor:
    """Log-probabilities with the unknown classes folded into the background.

    Args:
        logits: [B, C, D, H, W].
        known: [B, C] bool; column 0 (background) is always known.

    Returns:
        [B, C, D, H, W]; unknown classes are at minus infinity (finite: -1e4).
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    hidden = ~known
    hidden[:, 0] = True  # background itself belongs to the merged class
    mask = hidden[:, :, None, None, None]
    background = torch.logsumexp(log_p.masked_fill(~mask, -1e4), dim=1, keepdim=True)
    rest = log_p[:, 1:].masked_fill(mask[:, 1:], -1e4)
    return torch.cat([background, rest], dim=1)


def partial_dice_ce(
    logits: Tensor, target: Tensor, known: Tensor, voxel_weights: Tensor | None = None, smooth: float = 1e-5
) -> Tensor:
    """Sum of marginal cross-entropy and batch soft Dice over the organs in the batch.

    An organ that no patch of the batch shows has no Dice: its share would be decided by
    `smooth` and push the organ out of the network for good. Cross-entropy sees its false alarms.

    Args:
        logits: [B, C, D, H, W].
        target: [B, D, H, W] int64; labels of unknown organs count as background.
        known: [B, C] bool.
        voxel_weights: [C] weight of a class's voxels in cross-entropy; all 1 where None. A thin organ of
            low contrast gets no hold otherwise: its Dice has no gradient while its probability is nil.
        smooth: keeps Dice finite.
    """
    log_p = merge_unknown(logits, known)
    seen = known.gather(1, target.flatten(1)).view_as(target)
    target = torch.where(seen, target, torch.zeros_like(target))
    each = F.nll_loss(log_p, target, reduction="none")
    cross_entropy = (each if voxel_weights is None else each * voxel_weights[target]).mean()

    p = log_p.exp()
    onehot = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(p.dtype)
    keep = known[:, :, None, None, None].to(p.dtype)
    axes = (0, 2, 3, 4)
    overlap = (p * onehot * keep).sum(axes)[1:]
    total = ((p + onehot) * keep).sum(axes)[1:]
    dice = (2 * overlap + smooth) / (total + smooth)
    shown = (onehot.sum(axes)[1:] > 0).to(p.dtype)
    dice_loss = ((1 - dice) * shown).sum() / shown.sum().clamp(min=1)
    return cross_entropy + dice_loss


def deep_supervision_loss(
    outputs: Tensor | list[Tensor], target: Tensor, known: Tensor, voxel_weights: Tensor | None = None
) -> Tensor:
    """`partial_dice_ce` over all heads, weights 1, 1/2, 1/4 ... normalised to one."""
    heads = outputs if isinstance(outputs, list) else [outputs]
    weights = [0.5**n for n in range(len(heads))]
    total = torch.zeros(())
    for weight, head in zip(weights, heads, strict=True):
        scaled = F.interpolate(target[:, None].float(), size=head.shape[2:], mode="nearest-exact")[:, 0].long()
        total = total + weight / sum(weights) * partial_dice_ce(head, scaled, known, voxel_weights)
    return total
