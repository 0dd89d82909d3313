"""VLModel: CT and words in one space, and a head that judges a pair.

Search needs one vector for a study and one for a text: two projections of unit length, whose dot product ranks an
archive. A text of several sentences is then judged sentence by sentence: each is true of a study with some
probability, and their logarithms add up, so that one thing that is very much so does not outweigh another that is not.
The specification's fusion (2048 + 768 -> 1024) sees both at once; a linear score of it would rank studies the same for
every text (the text's share is a constant), so it has a non-linearity and judges the first hits of a search, pair by
pair.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlretrieval.image_encoder import VisionEncoder
from vlretrieval.inputs import StudyBatch
from vlretrieval.reports.sentences import split_sentences
from vlretrieval.study_encoder import StudyEncoder, StudyFeatures
from vlretrieval.text_encoder import TextEncoder, Texts

Images = Tensor | StudyBatch
REACH = 256.0  # length of a projection that fills a unit vector
_SCALE = math.log(3 / 16 * REACH)
_DOUBT = 0.02  # of any sentence: segmentation, reference or reader may be wrong


class VLModel(nn.Module):
    """Two towers for search, a fusion for matching.

    Args:
        vision_encoder: `VisionEncoder("resnet152")` if not given: 2048 numbers a volume. A `StudyEncoder` knows organs.
        text_encoder: `TextEncoder("bert-base")` if not given: 768 numbers a text.
        embed_dim: of the space that is searched.
        fused_dim: of the fusion.
        judges: it is trained on single statements, so that `likelihood` means something; vectors of studies then keep
            their lengths on the sphere. Without, a text and a study are compared by their cosine, as in CLIP.
    """

    def __init__(
        self,
        vision_encoder: VisionEncoder | StudyEncoder | None = None,
        text_encoder: TextEncoder | None = None,
        *,
        embed_dim: int = 512,
        fused_dim: int = 1024,
        judges: bool = False,
    ) -> None:
        super().__init__()
        self.vision_encoder = VisionEncoder(pretrained="resnet152") if vision_encoder is None else vision_encoder
        self.text_encoder = TextEncoder(pretrained="bert-base") if text_encoder is None else text_encoder
        seen, said = self.vision_encoder.output_dim, self.text_encoder.output_dim
        self.embed_dim, self.judges = embed_dim, judges
        self.image_projection = nn.Linear(seen, embed_dim - 1 if judges else embed_dim, bias=False)
        self.organ_projection = nn.Linear(seen, embed_dim, bias=False) if self.organs else None
        # Without a bias: the vector of a text is then the sum of its sentences' vectors.
        self.text_projection = nn.Linear(said, embed_dim, bias=False)
        self.statement_scale = nn.Parameter(torch.tensor(_SCALE))
        self.statement_bias = nn.Parameter(torch.tensor(-0.7))
        self.fusion = nn.Sequential(nn.Linear(seen + said, fused_dim), nn.GELU())
        self.matching = nn.Linear(fused_dim, 1)

    @classmethod
    def small(
        cls,
        organs: tuple[str, ...] = (),
        *,
        volume: bool = True,
        slices: bool = True,
        judges: bool = False,
        **text: Any,
    ) -> VLModel:
        """The model for CPUs: coarse volume, slices, organs and a small text encoder; 256 numbers a study."""
        vision = StudyEncoder(organs, volume=volume, slices=slices)
        return cls(vision, TextEncoder("scratch", **text), embed_dim=256, fused_dim=256, judges=judges)

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs that have vectors of their own."""
        return self.vision_encoder.organs if isinstance(self.vision_encoder, StudyEncoder) else ()

    def forward(self, images: Images, texts: Texts) -> Tensor:
        """Pairs of images and texts -> [B, fused_dim]."""
        return self.fuse(self.see(images).whole, self.text_encoder(texts))

    def fuse(self, seen: Tensor, said: Tensor) -> Tensor:
        """Features of both encoders, pair by pair -> [B, fused_dim]."""
        # On one scale: the larger of the two would drown the other.
        both = [functional.layer_norm(part, part.shape[1:]) for part in (seen, said)]
        fused: Tensor = self.fusion(torch.cat(both, dim=1))
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
        points = self.image_projection(features.whole)
        whole = _on_sphere(points / REACH) if self.judges else functional.normalize(points, dim=-1)
        if self.organ_projection is None:
            return whole, whole.new_zeros(len(whole), 0, self.embed_dim)
        return whole, functional.normalize(self.organ_projection(features.organs), dim=-1)

    def encode_texts(self, texts: Texts) -> Tensor:
        """[B, embed_dim] of unit length."""
        return functional.normalize(self.text_projection(self.text_encoder(texts)), dim=-1)

    def statement_logits(self, sentences: Tensor, whole: Tensor) -> Tensor:
        """[S, N]: how sure it is that sentences are true of studies.

        Args:
            sentences: [S, embed_dim] projected, not of unit length: how long one is says how much it asks for.
            whole: [N, embed_dim] vectors of studies.
        """
        logits: Tensor = self.statement_scale.exp() * sentences @ whole.T + self.statement_bias
        return logits

    def likelihood(self, text: str, whole: Tensor) -> Tensor:
        """[N]: mean over a text's sentences of log(p + 0.02), p the probability that a sentence is true of the study.

        Of a model that does not judge it is the cosine of the whole text, which orders studies and is no probability.

        Args:
            text: one or more sentences.
            whole: [N, embed_dim] vectors of studies.
        """
        if not self.judges:
            return whole @ self.encode_texts([text])[0]
        rows = self.text_encoder.tokenise_rows(split_sentences(text) or [""]).to(whole.device)
        sentences = self.text_projection(self.text_encoder.encode_rows(rows))
        return (self.statement_logits(sentences, whole).sigmoid() + _DOUBT).log().mean(dim=0)


def _on_sphere(points: Tensor) -> Tensor:
    """[B, D - 1] -> [B, D] of unit length, dot products kept: the last number fills what is missing to one.

    Points beyond the unit ball are drawn back to it. (Neyshabur and Srebro, "On Symmetric and Asymmetric LSHs for Inner
    Product Search", 2015.)
    """
    inside = points / points.norm(dim=-1, keepdim=True).clamp(min=1)
    rest = (1 - inside.square().sum(dim=-1, keepdim=True)).clamp(min=1e-8).sqrt()
    return torch.cat([inside, rest], dim=-1)


def _none(features: Tensor) -> Tensor:
    return torch.zeros(len(features), 0, dtype=torch.bool, device=features.device)
