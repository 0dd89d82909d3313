"""What is trained: the model, its temperatures, the weights of its losses, and a memory of studies seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.training.distributed import all_rows
from vlretrieval.facts.kinds import KINDS
from vlretrieval.losses.contrastive import FALSE, info_nce, sigmoid_pairs, statements, truth_of
from vlretrieval.losses.weighting import DynamicLoss
from vlretrieval.model import VLModel
from vlretrieval.study_encoder import StudyFeatures
from vlretrieval.text_encoder import mean_by_owner
from vlretrieval.training.batch import PairBatch, pair_truth
from vlretrieval.training.config import LossConfig

MAX_SCALE = math.log(100)
_TOLD = 1 / 16  # brings projections to about one a number
_CODES = max(2, *(len(kind.values) for kind in KINDS))


class TrainingNetwork(nn.Module):
    """`forward(batch)` gives the total loss and its parts; everything that learns is in here.

    Args:
        model: what will be packaged.
        config: which losses, how weighed.
        num_studies: of the training set.
        num_attributes: K of its batches.
    """

    bank: Tensor
    bank_found: Tensor
    bank_steps: Tensor

    def __init__(self, model: VLModel, config: LossConfig, num_studies: int, num_attributes: int) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.weighting = DynamicLoss({str(name): weight for name, weight in config.weights.items()}, config.weighting)
        self.pair_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.pair_bias = nn.Parameter(torch.tensor(-10.0), requires_grad=config.pairs == "siglip")
        self.organ_scale = nn.Parameter(torch.tensor(math.log(3.0)))
        self.organ_bias = nn.Parameter(torch.tensor(-0.7))
        self.telling = nn.Linear(model.image_projection.out_features, num_attributes * _CODES)
        self.register_buffer("bank", torch.zeros(num_studies, model.embed_dim))
        self.register_buffer("bank_found", torch.full((num_studies, num_attributes), -1, dtype=torch.long))
        self.register_buffer("bank_steps", torch.zeros((), dtype=torch.long))

    def forward(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """(total, parts)."""
        rows = self.model.text_encoder.encode_rows(batch.tokens)
        said = mean_by_owner(rows[batch.members], batch.owner, len(batch.stated))
        features = self.model.see(batch.studies)
        whole, organs = self.model.embed(features)
        texts = functional.normalize(self.model.text_projection(said), dim=1)
        sentences = self.model.text_projection(rows)
        parts = {
            "pairs": lambda: self._pairs(batch, whole, texts),
            "statements": lambda: self._statements(batch, whole, sentences),
            "attributes": lambda: self._attributes(batch, features),
            "organs": lambda: self._organs(batch, features, organs, sentences),
            "matching": lambda: self._matching(batch, features.whole, said, whole, texts),
        }
        losses = {name: parts[name]() for name in self.config.weights}
        return self.weighting(losses), {name: loss.detach() for name, loss in losses.items()}

    def _pairs(self, batch: PairBatch, whole: Tensor, texts: Tensor) -> Tensor:
        """The contrastive loss over the pairs of all ranks."""
        count = len(whole)
        own, edited = texts[:count], texts[count:]
        studies, found = all_rows(whole), all_rows(batch.found)
        every = torch.cat([all_rows(own), all_rows(edited)]) if len(edited) else all_rows(own)
        stated = torch.cat([all_rows(batch.stated[:count]), all_rows(batch.stated[count:])])
        ids = torch.cat([all_rows(batch.text_ids[:count]), all_rows(batch.text_ids[count:])])
        truth = pair_truth(stated, ids, found, ids[: len(studies)], self.config.mask_false_negatives)
        logits = self.pair_scale.clamp(max=MAX_SCALE).exp() * every @ studies.T
        if self.config.pairs == "siglip":
            return sigmoid_pairs(logits + self.pair_bias, truth)
        logits, truth = self._with_memory(logits, truth, every, stated, ids)
        self._remember(all_rows(batch.numbers), studies, found)
        return info_nce(logits, truth)

    def _with_memory(
        self, logits: Tensor, truth: Tensor, texts: Tensor, stated: Tensor, ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """After warm-up, the nearest false studies of the memory stand beside those of the batch."""
        hard = min(self.config.hard_negatives, len(self.bank))
        if not (self.training and hard and int(self.bank_steps) >= self.config.hard_after and (ids == -1).all()):
            return logits, truth
        near = self.pair_scale.clamp(max=MAX_SCALE).exp() * texts @ self.bank.clone().T
        false = truth_of(stated, self.bank_found) == FALSE
        false &= (self.bank.abs().sum(dim=1) > 0).unsqueeze(0)
        # Columns differ from row to row: only texts choose among them, so they count in the texts' half alone.
        chosen = near.masked_fill(~false, -1e4).topk(hard, dim=1)
        extra = torch.zeros(truth.shape[0], hard, dtype=truth.dtype, device=truth.device)
        extra = extra.masked_fill(chosen.values <= -1e4, -1)
        return torch.cat([logits, chosen.values], dim=1), torch.cat([truth, extra], dim=1)

    @torch.no_grad()
    def _remember(self, numbers: Tensor, studies: Tensor, found: Tensor) -> None:
        if self.training:
            self.bank[numbers] = studies.detach().to(self.bank.dtype)
            self.bank_found[numbers] = found
            self.bank_steps += 1

    def _statements(self, batch: PairBatch, whole: Tensor, sentences: Tensor) -> Tensor:
        """Every sentence against every study of the batch; a sentence's length is its certainty."""
        logits = self.model.statement_logits(sentences, whole)
        return statements(logits, _stating(batch, truth_of(batch.said, batch.found)))

    def _attributes(self, batch: PairBatch, features: StudyFeatures) -> Tensor:
        """What is known of the studies, told from their projections without words."""
        logits = self.telling(_TOLD * self.model.image_projection(features.whole)).view(*batch.found.shape, _CODES)
        if not (batch.found >= 0).any():
            return logits.sum() * 0
        return functional.cross_entropy(logits.flatten(0, 1), batch.found.flatten(), ignore_index=-1)

    def _organs(self, batch: PairBatch, features: StudyFeatures, organs: Tensor, sentences: Tensor) -> Tensor:
        """Sentences about an organ against that organ's vectors."""
        about = batch.organ >= 0
        if not about.any() or not organs.shape[1]:
            return sentences.sum() * 0
        vectors = organs[:, batch.organ[about]]  # [B, S', E]
        logits = self.organ_scale.exp() * torch.einsum("se,bse->sb", sentences[about], vectors) + self.organ_bias
        truth = truth_of(batch.said[about], batch.found)
        seen = features.present[:, batch.organ[about]].T
        return statements(logits, truth.masked_fill(~seen, -1))

    def _matching(self, batch: PairBatch, seen: Tensor, said: Tensor, whole: Tensor, texts: Tensor) -> Tensor:
        """True pairs, and for each study and each text the false one that looks most like a match."""
        count = len(whole)
        truth = pair_truth(
            batch.stated, batch.text_ids, batch.found, batch.text_ids[:count], self.config.mask_false_negatives
        )
        near = (texts @ whole.T).detach().masked_fill(truth != FALSE, -2.0)
        text_of, study_of = near.argmax(dim=0), near[:count].argmax(dim=1)
        own = torch.arange(count, device=whole.device)
        study = torch.cat([own, own, study_of])
        text = torch.cat([own, text_of, own])
        right = torch.cat([torch.ones(count), torch.zeros(2 * count)]).to(whole.device)
        logits = self.model.match(self.model.fuse(seen[study], said[text]))
        return statements(logits.unsqueeze(1), _match_truth(near, text_of, study_of, right))


def _stating(batch: PairBatch, truth: Tensor) -> Tensor:
    """A sentence that states nothing known asks nothing."""
    return truth.masked_fill(~(batch.said >= 0).any(dim=1, keepdim=True), -1)


def _match_truth(near: Tensor, text_of: Tensor, study_of: Tensor, right: Tensor) -> Tensor:
    """1 for true pairs, 0 for false ones, -1 where a study or text has no false partner in the batch."""
    count = len(study_of)
    no_text = near.gather(0, text_of.unsqueeze(0)).squeeze(0) <= -2
    no_study = near[:count].gather(1, study_of.unsqueeze(1)).squeeze(1) <= -2
    open_ = torch.cat([torch.zeros_like(no_text), no_text, no_study])
    return right.to(torch.int8).masked_fill(open_, -1).unsqueeze(1)
