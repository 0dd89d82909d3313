"""VLModel: CT and words in one space, and a head that judges a pair.

Search needs one vector for a study and one for a text: two projections of unit length, whose dot product ranks an
archive. The specification's fusion (2048 + 768 -> 1024) sees both at once; a linear score of it would rank
studies the same for every text (the text's share is a constant), so it has a non-linearity and judges the first hits
of a search, pair by pair.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlretrieval.image_encoder import VisionEncoder
from vlretrieval.inputs import StudyBatch
from vlretrieval.study_encoder import StudyEncoder, StudyFeatures
from vlretrieval.text_encoder import TextEncoder, Texts

Images = Tensor | StudyBatch


class VLModel(nn.Module):
    """Two towers for search, a fusion for matching.

    Args:
        vision_encoder: `VisionEncoder("resnet152")` if not given: 2048 numbers a volume. A `StudyEncoder` knows organs.
        text_encoder: `TextEncoder("bert-base")` if not given: 768 numbers a text.
        embed_dim: of the space that is searched.
        fused_dim: of the fusion.
    """

    def __init__(
        self,
        vision_encoder: VisionEncoder | StudyEncoder | None = None,
        text_encoder: TextEncoder | None = None,
        *,
        embed_dim: int = 512,
        fused_dim: int = 1024,
    ) -> None:
        super().__init__()
        self.vision_encoder = VisionEncoder(pretrained="resnet152") if vision_encoder is None else vision_encoder
        self.text_encoder = TextEncoder(pretrained="bert-base") if text_encoder is None else text_encoder
        seen, said = self.vision_encoder.output_dim, self.text_encoder.output_dim
        self.embed_dim = embed_dim
        self.image_projection = nn.Linear(seen, embed_dim, bias=False)
        self.organ_projection = nn.Linear(seen, embed_dim, bias=False) if self.organs else None
        # Without a bias: the vector of a text is then the sum of its sentences' vectors.
        self.text_projection = nn.Linear(said, embed_dim, bias=False)
        self.fusion = nn.Sequential(nn.Linear(seen + said, fused_dim), nn.GELU())
        self.matching = nn.Linear(fused_dim, 1)

    @classmethod
    def small(cls, organs: tuple[str, ...] = (), *, volume: bool = True, **text: Any) -> VLModel:
        """The model for CPUs: coarse volume, slices, organs and a small text encoder; 256 numbers a study."""
        return cls(StudyEncoder(organs, volume=volume), TextEncoder("scratch", **text), embed_dim=256, fused_dim=256)

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs that have vectors of their own."""
        return self.vision_encoder.organs if isinstance(self.vision_encoder, StudyEncoder) else ()

    def forward(self, images: Images, texts: Texts) -> Tensor:
        """Pairs of images and texts -> [B, fused_dim]."""
        return self.fuse(self.see(images).whole, self.text_encoder(texts))

    def fuse(self, seen: Tensor, said: Tensor) -> Tensor:
        """Features of both encoders, pair by pair -> [B, fused_dim]."""
        fused: Tensor = self.fusion(torch.cat([seen, said], dim=1))
        return fused

    def match(self, fused: Tensor) -> Tensor:
        """[B, fused_dim] -> [B]: positive where image and text belong together."""
        return self.matching(fused).squeeze(1)

    def see(self, images: Images) -> StudyFeatures:
        """Features of the vision encoder, with none of organs where it knows none."""
        features = self.vision_encoder(images)
        if isinstance(features, StudyFeatures):
            return features
        return StudyFeatures(features, features.new_zeros(len(features), 0, features.shape[1]), _none(features))

    def encode_images(self, images: Images) -> Tensor:
        """[B, embed_dim] of unit length."""
        return self.embed(self.see(images))[0]

    def embed(self, features: StudyFeatures) -> tuple[Tensor, Tensor]:
        """Vectors of unit length: of the whole [B, embed_dim] and of every organ [B, O, embed_dim]."""
        whole = functional.normalize(self.image_projection(features.whole), dim=-1)
        if self.organ_projection is None:
            return whole, whole.new_zeros(len(whole), 0, self.embed_dim)
        return whole, functional.normalize(self.organ_projection(features.organs), dim=-1)

    def encode_texts(self, texts: Texts) -> Tensor:
        """[B, embed_dim] of unit length."""
        return functional.normalize(self.text_projection(self.text_encoder(texts)), dim=-1)


def _none(features: Tensor) -> Tensor:
    return torch.zeros(len(features), 0, dtype=torch.bool, device=features.device)
