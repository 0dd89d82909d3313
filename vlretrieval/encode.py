"""LearnedEncoder: studies and words -> vectors of one space, with a verified model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medseg.imaging.volume import Array
from vlretrieval.inputs import StudyInput, collate
from vlretrieval.package import RetrievalPackage
from vlretrieval.study import Vectors


class LearnedEncoder:
    """Vectors of a trained model.

    Args:
        package: the model. Its matching head judges pairs where the card says that it was trained (`training.losses`);
            a card of before losses stood there does not, and what was never trained would judge at random.
    """

    def __init__(self, package: RetrievalPackage) -> None:
        self._model = package.model
        self.id, self.fusion = package.id, package.card.fusion
        self.dim, self.features = package.model.embed_dim, package.model.vision_encoder.output_dim
        self.organs, self.judges = package.model.organs, package.model.judges
        self._matches = "matching" in package.card.training.get("losses", {})

    def studies(self, inputs: Sequence[StudyInput]) -> list[Vectors]:
        with torch.inference_mode():
            features = self._model.see(collate(inputs, self.organs))
            whole, organs = self._model.embed(features)
        found = []
        for place in range(len(inputs)):
            named = {
                name: organs[place, number].numpy()
                for number, name in enumerate(self.organs)
                if features.present[place, number]
            }
            found.append(Vectors(whole[place].numpy(), named, features.whole[place].numpy()))
        return found

    def words(self, text: str) -> Array:
        with torch.inference_mode():
            return self._model.encode_texts([text]).numpy()[0]

    def likelihood(self, text: str, vectors: Array) -> Array:
        with torch.inference_mode():
            whole = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
            return self._model.likelihood(text, whole).numpy()

    def match(self, text: str, features: Array) -> Array | None:
        if not self._matches:
            return None
        with torch.inference_mode():
            said = self._model.text_encoder([text]).expand(len(features), -1)
            seen = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
            return self._model.match(self._model.fuse(seen, said)).numpy()
