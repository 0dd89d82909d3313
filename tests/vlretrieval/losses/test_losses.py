"""Losses against figures by hand, and weights that follow the training without running away."""

from __future__ import annotations

import math

import pytest
import torch

from medseg.errors import ConfigError, DataError
from vlretrieval.losses import DynamicLoss, info_nce, sigmoid_pairs, statements, truth_of

EYE = torch.eye(2, dtype=torch.int8)


def test_clips_loss_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    rows = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1))]
    assert float(info_nce(logits, EYE)) == pytest.approx(sum(rows) / 2)


def test_equal_texts_share_the_mass_instead_of_being_pushed_apart() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    info_nce(logits, torch.ones(2, 2, dtype=torch.int8)).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_what_nobody_knows_is_neither_pulled_nor_pushed() -> None:
    truth = torch.tensor([[1, -1], [0, 1]], dtype=torch.int8)
    for loss in (info_nce, sigmoid_pairs, statements):
        logits = torch.zeros(2, 2, requires_grad=True)
        loss(logits, truth).backward()
        assert logits.grad is not None
        assert logits.grad[0, 1] == 0, loss
        assert logits.grad[1, 0] > 0
        assert logits.grad[0, 0] < 0 or loss is info_nce


def test_nothing_known_is_no_loss_and_no_nan() -> None:
    unknown = torch.full((2, 2), -1, dtype=torch.int8)
    logits = torch.ones(2, 2, requires_grad=True)
    assert float(statements(logits, unknown).detach()) == float(info_nce(logits, unknown).detach()) == 0


def test_siglips_loss_by_hand() -> None:
    expected = (2 * math.log(1 + math.exp(-1)) + 2 * math.log(1 + math.exp(-1))) / 2
    assert float(sigmoid_pairs(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), EYE)) == pytest.approx(expected)


def test_truth_of_statements() -> None:
    stated = torch.tensor([[1, -1], [1, 0], [-1, -1]])
    found = torch.tensor([[1, 0], [1, -1], [0, 0]])
    assert truth_of(stated, found).tolist() == [[1, 1, 0], [1, -1, 0], [1, 1, 1]]


@pytest.mark.parametrize("method", ["fixed", "uncertainty", "dwa", "famo"])
def test_weights_start_as_given_and_stay_positive(method: str) -> None:
    weigh = DynamicLoss({"a": 1.0, "b": 3.0}, method).train()  # type: ignore[arg-type]
    assert weigh.weights.tolist() == pytest.approx([1, 3])
    optimiser = torch.optim.Adam(
        [p for p in weigh.parameters() if p.requires_grad] or [torch.zeros(1, requires_grad=True)], 0.05
    )
    for step in range(400):
        optimiser.zero_grad()
        losses = {
            "a": torch.tensor(2.0 + math.exp(-step / 10), requires_grad=True),
            "b": torch.tensor(0.1, requires_grad=True),
        }
        weigh(losses).backward()
        optimiser.step()
    assert (weigh.weights > 0).all()
    assert torch.isfinite(weigh.weights).all()
    assert float(weigh.weights.max()) < 100


def test_uncertainty_gives_a_large_loss_less() -> None:
    weigh = DynamicLoss([1.0, 1.0])
    optimiser = torch.optim.Adam(weigh.parameters(), 0.05)
    for _ in range(300):
        optimiser.zero_grad()
        weigh([torch.tensor(4.0), torch.tensor(0.5)]).backward()
        optimiser.step()
    assert weigh.weights.tolist() == pytest.approx([1 / 4, 1 / 0.5], rel=0.05)  # its optimum is 1 / loss


@pytest.mark.parametrize("method", ["dwa", "famo"])
def test_a_loss_that_does_not_fall_gains_weight(method: str) -> None:
    weigh = DynamicLoss([1.0, 1.0], method, window=5).train()  # type: ignore[arg-type]
    for step in range(40):
        weigh([torch.tensor(math.exp(-step / 8)), torch.tensor(1.0)])
    assert weigh.weights[1] > weigh.weights[0]
    held = weigh.weights.clone()
    weigh.eval()([torch.tensor(9.0), torch.tensor(9.0)])
    weigh.train()([torch.tensor(math.nan), torch.tensor(1.0)])
    assert torch.equal(weigh.weights, held)  # neither judging nor a skipped step moves them


def test_the_literal_formula_teaches_nothing_and_runs_away() -> None:
    """Equal weights: no gradient for the network. Free weights: descent takes them below zero and on."""
    weigh = DynamicLoss([1.0, 1.0], "literal")
    losses = torch.tensor([0.7, 0.2], requires_grad=True)
    weigh(losses).backward()
    assert losses.grad is not None
    assert losses.grad.abs().max() < 1e-6
    optimiser = torch.optim.SGD(weigh.parameters(), 0.5)
    for _ in range(100):
        optimiser.zero_grad()
        weigh(losses.detach()).backward()
        optimiser.step()
    assert (weigh.weights < -5).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="positive"):
        DynamicLoss([1.0, -1.0])
    with pytest.raises(ConfigError, match="no way"):
        DynamicLoss([1.0], "magic")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="2 losses"):
        DynamicLoss([1.0])(torch.ones(2))
    with pytest.raises(DataError, match="weights are of"):
        DynamicLoss({"a": 1.0})({"b": torch.ones(())})


def test_weights_survive_a_checkpoint() -> None:
    first, second = DynamicLoss([1.0, 2.0], "famo"), DynamicLoss([5.0, 5.0], "famo")
    for step in range(5):
        first([torch.tensor(math.exp(-step)), torch.tensor(1.0)])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.weights, second.weights)
