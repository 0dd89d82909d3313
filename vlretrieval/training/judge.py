"""How well do a model's texts find studies that it was not trained on?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vlretrieval.evaluation.ranking import score_queries
from vlretrieval.evaluation.statistics import bootstrap
from vlretrieval.facts.grammar import describe
from vlretrieval.inputs import collate
from vlretrieval.model import VLModel
from vlretrieval.training.studies import TrainingStudy

KS = (1, 5, 10)


def judge(model: VLModel, studies: Sequence[TrainingStudy]) -> dict[str, float]:
    """Recall@k (with its chance and pool) and median rank of texts that find their studies.

    Texts are reports, or all facts of a study in sentences that training never holds. Studies with the same words,
    or with the same facts, are right answers for each other. Empty for fewer than two studies.
    """
    if len(studies) < 2:
        return {}
    rng = np.random.default_rng(0)
    texts = [study.report or describe(study.facts, rng, "test") for study in studies]
    with torch.inference_mode():
        seen = model.encode_images(collate([study.seen for study in studies], model.organs))
        scores = torch.stack([model.likelihood(text, seen) for text in texts]).numpy()
    found = score_queries(scores.astype(np.float64), _answers(studies), ks=KS)
    patients = [study.patient for study in studies]
    figures = {"pool": float(len(studies))}
    for place, k in enumerate(KS):
        recall = bootstrap(found.hits[:, place], patients, draws=500)
        figures |= {f"recall_{k}": recall.value, f"recall_{k}_low": recall.low, f"recall_{k}_high": recall.high}
        figures[f"chance_{k}"] = float(np.nanmean(found.chance[:, place]))
    return figures | {"median_rank": float(np.nanmedian(found.first_rank))}


def _answers(studies: Sequence[TrainingStudy]) -> np.ndarray:
    keys = [study.report.strip() or sorted(study.facts.items()) for study in studies]
    return np.array([[a == b for b in keys] for a in keys])
