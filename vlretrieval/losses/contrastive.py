"""Losses of pairs: which texts belong to which studies, with every right answer counted as one.

Tables of truth hold 1 (the text is true of the study), 0 (false) and -1 (nobody knows). What nobody knows is
neither pulled together nor pushed apart.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

FALSE, TRUE, UNKNOWN = 0, 1, -1


def info_nce(logits: Tensor, truth: Tensor) -> Tensor:
    """CLIP's loss for tables with several right answers a row.

    Args:
        logits: [texts, studies], similarity times temperature. Texts beyond the studies' own (edited ones, of which
            none is true) are negatives for studies alone.
        truth: [texts, studies]; a row's right answers share its mass.
    """
    return 0.5 * (_rows(logits, truth) + _rows(logits.T, truth.T))


def _rows(logits: Tensor, truth: Tensor) -> Tensor:
    right = (truth == TRUE).to(logits.dtype)
    answered = right.sum(dim=1) > 0
    if not answered.any():
        return logits.sum() * 0
    known = logits.masked_fill(truth == UNKNOWN, torch.finfo(logits.dtype).min)
    share = right / right.sum(dim=1, keepdim=True).clamp(min=1)
    losses = -(share * functional.log_softmax(known, dim=1)).sum(dim=1)
    return losses[answered].mean()


def sigmoid_pairs(logits: Tensor, truth: Tensor) -> Tensor:
    """SigLIP's loss: every pair is a question of its own, summed over a text's studies.

    Args:
        logits: [texts, studies], similarity times temperature plus bias.
        truth: [texts, studies].
    """
    known = truth != UNKNOWN
    losses = functional.binary_cross_entropy_with_logits(logits, (truth == TRUE).to(logits.dtype), reduction="none")
    return (losses * known).sum() / logits.shape[0]


def statements(logits: Tensor, truth: Tensor) -> Tensor:
    """Is the statement true of the study? Mean over the pairs of which that is known."""
    known = truth != UNKNOWN
    if not known.any():
        return logits.sum() * 0
    return functional.binary_cross_entropy_with_logits(logits[known], (truth[known] == TRUE).to(logits.dtype))


def truth_of(stated: Tensor, found: Tensor) -> Tensor:
    """[T, K] stated and [B, K] found attributes (-1: not stated, not known) -> [T, B] truth.

    A text is true of a study where everything that it states is found there, false where one thing is found to be
    otherwise, unknown else.
    """
    said, seen = stated.unsqueeze(1), found.unsqueeze(0)
    asked = said >= 0
    wrong = (asked & (seen >= 0) & (said != seen)).any(dim=2)
    open_ = (asked & (seen < 0)).any(dim=2)
    truth = torch.full(wrong.shape, TRUE, dtype=torch.int8, device=stated.device)
    return truth.masked_fill(open_, UNKNOWN).masked_fill(wrong, FALSE)
