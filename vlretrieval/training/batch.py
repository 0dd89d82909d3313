"""PairBatch: what one training step sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlretrieval.inputs import StudyBatch
from vlretrieval.losses.contrastive import FALSE, TRUE, UNKNOWN, truth_of


@dataclass(frozen=True)
class PairBatch:
    """B studies with a text each, and edited texts that are true of none of the studies they were made from.

    Attributes:
        studies: B studies.
        numbers: [B] their places in the training set.
        found: [B, K] attributes of the studies; -1 is unknown.
        tokens: [S, L] sentences, each once.
        members, owner: [M] which sentence stands in which text.
        said: [S, K] what each sentence states; -1 where it states nothing.
        organ: [S] the organ that a sentence speaks of, by its place in the model; -1 is none.
        stated: [T, K] what the texts state; the first B are the studies' own.
        text_ids: [T] equal texts have equal numbers, edited ones numbers below -1; -1: `stated` says it all.
        ids: names of the studies.
    """

    studies: StudyBatch
    numbers: Tensor
    found: Tensor
    tokens: Tensor
    members: Tensor
    owner: Tensor
    said: Tensor
    organ: Tensor
    stated: Tensor
    text_ids: Tensor
    ids: tuple[str, ...]


def pair_truth(stated: Tensor, text_ids: Tensor, found: Tensor, study_ids: Tensor, masked: bool = True) -> Tensor:
    """[T, B]: which texts are true of which studies.

    Facts decide where a text is made of facts. A report is true of the studies that have the same report; of those
    with the same findings nobody knows, since another report may say the same.

    Args:
        stated, text_ids: of the texts.
        found, study_ids: of the studies; `study_ids` are the ids of their own texts.
        masked: False calls every other pair false, as plain CLIP does.
    """
    same = torch.arange(len(stated), device=stated.device).unsqueeze(1) == torch.arange(len(found), device=found.device)
    if not masked:
        return same.to(torch.int8)
    by_facts = truth_of(stated, found)
    equal = text_ids.unsqueeze(1) == study_ids.unsqueeze(0)
    speaks = (stated >= 0).any(dim=1, keepdim=True)
    alike = speaks & (by_facts == TRUE) & (text_ids.unsqueeze(1) >= 0)
    by_report = torch.full_like(by_facts, FALSE).masked_fill(alike, UNKNOWN).masked_fill(equal, TRUE)
    truth = torch.where(text_ids.unsqueeze(1) == -1, by_facts, by_report)
    return truth.masked_fill(same, TRUE)
