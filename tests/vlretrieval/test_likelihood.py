"""Texts judged sentence by sentence, and vectors of unit length whose dot products are kept."""

from __future__ import annotations

import math

import pytest
import torch

from vlretrieval.model import REACH, VLModel, _on_sphere


@pytest.fixture(scope="module")
def model() -> VLModel:
    torch.manual_seed(0)
    return VLModel.small(("mandible",), volume=False, slices=False, judges=True).eval()


def test_the_sphere_keeps_dot_products_and_draws_back_what_is_too_long() -> None:
    points = torch.randn(20, 7, generator=torch.Generator().manual_seed(0)) * 0.2
    points[0] *= 100
    vectors = _on_sphere(points)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(20), atol=1e-5)
    assert torch.allclose(vectors[1:, :-1], points[1:])
    query = torch.cat([torch.ones(7), torch.zeros(1)])
    assert torch.allclose(vectors[1:] @ query, points[1:].sum(dim=1), atol=1e-6)
    assert torch.allclose(vectors[0, :-1] * points[0].norm(), points[0], atol=1e-3)


def test_a_texts_likelihood_is_the_mean_of_its_sentences(model: VLModel) -> None:
    whole = _on_sphere(torch.randn(4, 255, generator=torch.Generator().manual_seed(1)) / REACH)
    first, second = "The mandible is small.", "There is no metal."
    with torch.inference_mode():
        parts = [model.likelihood(text, whole) for text in (first, second)]
        both = model.likelihood(f"{first} {second}", whole)
    assert both.shape == (4,)
    assert torch.allclose(both, (parts[0] + parts[1]) / 2, atol=1e-4)


def test_one_thing_that_is_not_so_outweighs_others_that_are_very_much_so(model: VLModel) -> None:
    logits = torch.tensor([[30.0, 2.0], [-6.0, 2.0]])  # of two sentences, for two studies
    original, model.statement_logits = model.statement_logits, lambda *_: logits  # type: ignore[method-assign]
    try:
        scores = model.likelihood("One. Two.", torch.zeros(2, 256))
    finally:
        model.statement_logits = original  # type: ignore[method-assign]
    assert logits.sum(dim=0).argmax() == 0
    assert scores.argmax() == 1
    doubt = math.log(1.02) + math.log(1 / (1 + math.exp(6)) + 0.02)
    assert math.isclose(float(scores[0]), doubt / 2, rel_tol=1e-4)


def test_an_empty_text_is_judged_too(model: VLModel) -> None:
    with torch.inference_mode():
        assert torch.isfinite(model.likelihood("", _on_sphere(torch.zeros(2, 255)))).all()


def test_a_model_that_learned_no_statements_compares_whole_texts() -> None:
    torch.manual_seed(0)
    plain = VLModel.small(("mandible",), volume=False, slices=False).eval()
    whole = torch.nn.functional.normalize(torch.randn(3, 256, generator=torch.Generator().manual_seed(1)), dim=1)
    text = "The mandible is small. There is no metal."
    with torch.inference_mode():
        assert torch.allclose(plain.likelihood(text, whole), whole @ plain.encode_texts([text])[0])
