"""Dice + cross-entropy for partial labels, counted over all ranks.

An organ that was not contoured in a case is *unknown* there: its voxels may carry the label "background". The
probabilities of background and of all unknown organs are merged before the loss, so that the network may find the
organ without being punished (marginal loss, Shi et al., Medical Image Analysis 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

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


def partial_dice_ce(
    logits: Tensor, target: Tensor, known: Tensor, voxel_weights: Tensor | None = None, smooth: float = 1e-5
) -> Tensor:
    """Sum of marginal cross-entropy and batch soft Dice over the organs in the batch.

    The batch is that of all ranks: sums and counts are taken over them before anything is divided. An organ that no
    patch shows has no Dice: its share would be decided by `smooth` and push the organ out of the network for good.
    Cross-entropy sees its false alarms.

    Args:
        logits: [B, C, D, H, W].
        target: [B, D, H, W] int64; labels of unknown organs count as background.
        known: [B, C] bool.
        voxel_weights: [C] weight of a class's voxels in cross-entropy; all 1 where None. A thin organ of
            low contrast gets no hold otherwise: its Dice has no gradient while its probability is nil.
        smooth: keeps Dice finite.
    """
    classes = logits.shape[1]
    weights = torch.ones(classes, device=logits.device) if voxel_weights is None else voxel_weights
    rows = [_counts(*patch, weights) for patch in zip(logits, target, known, strict=True)]
    counts = all_sum(torch.stack(rows).sum(0))
    cost, voxels = counts[0], counts[1]
    overlap, total, shown = counts[2:].view(3, classes)[:, 1:]
    dice = (2 * overlap + smooth) / (total + smooth)
    there = (shown > 0).to(dice.dtype)
    return cost / voxels + ((1 - dice) * there).sum() / there.sum().clamp(min=1)


def _counts(logits: Tensor, target: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """[2 + 3 C]: cross-entropy and number of voxels; per class overlap, probability + volume, volume."""
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
    overlap = torch.zeros_like(volume).index_add(0, flat, (-each).exp())
    total = log_p.exp().sum((1, 2, 3)) + volume
    cost = (each * weights.to(each.dtype)[classes][flat]).sum()
    table = torch.zeros(3, len(known), dtype=each.dtype, device=each.device)
    table = table.index_copy(1, classes, torch.stack([overlap, total, volume]))
    return torch.cat([torch.stack([cost, cost.new_tensor(float(flat.numel()))]), table.flatten()])


def deep_supervision_loss(
    outputs: Tensor | Sequence[Tensor], target: Tensor, known: Tensor, voxel_weights: Tensor | None = None
) -> Tensor:
    """`partial_dice_ce` over all heads, weights 1, 1/2, 1/4 ... normalised to one."""
    heads = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    weights = [0.5**n for n in range(len(heads))]
    total = torch.zeros((), device=target.device)
    for weight, head in zip(weights, heads, strict=True):
        fitted = F.interpolate(target[:, None].float(), size=head.shape[2:], mode="nearest-exact")[:, 0].long()
        total = total + weight / sum(weights) * partial_dice_ce(head, fitted, known, voxel_weights)
    return total
