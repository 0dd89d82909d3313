"""Studies and words -> vectors of one space, with a verified model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medseg.imaging.volume import Array
from vlretrieval.inputs import StudyInput, collate
from vlretrieval.package import RetrievalPackage
from vlretrieval.study import Vectors


def encode_studies(package: RetrievalPackage, inputs: Sequence[StudyInput]) -> list[Vectors]:
    """Vectors of the whole and of every organ that was found."""
    with torch.inference_mode():
        features = package.model.see(collate(inputs, package.model.organs))
        whole, organs = package.model.embed(features)
    found = []
    for place in range(len(inputs)):
        named = {
            name: organs[place, number].numpy()
            for number, name in enumerate(package.model.organs)
            if features.present[place, number]
        }
        found.append(Vectors(whole[place].numpy(), named, features.whole[place].numpy()))
    return found


def encode_words(package: RetrievalPackage, texts: Sequence[str]) -> Array:
    """[B, D] of unit length."""
    with torch.inference_mode():
        return package.model.encode_texts(list(texts)).numpy()


def match_scores(package: RetrievalPackage, text: str, features: Array) -> Array:
    """[N] how well the matching head says that a text belongs to studies, from their features [N, F]."""
    with torch.inference_mode():
        said = package.model.text_encoder([text]).expand(len(features), -1)
        seen = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
        return package.model.match(package.model.fuse(seen, said)).numpy()
