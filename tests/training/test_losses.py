"""Partial labels: what is unknown costs nothing, what is known costs what the formulas say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medseg.training.losses import Weights, deep_supervision_loss, merge_unknown, partial_dice_ce

SHAPE = (3, 4, 5)


def draw(batch: int = 2, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, *SHAPE, generator=generator)
    return logits, torch.randint(0, classes, (batch, *SHAPE), generator=generator)


def sure_of(classes: Tensor, num_classes: int) -> Tensor:
    """Logits that leave no doubt about `classes`."""
    return 40.0 * functional.one_hot(classes, num_classes).movedim(-1, 1).float()


def by_hand(logits: NDArray, target: NDArray, known: NDArray) -> float:
    """Marginal cross-entropy + batch soft Dice of the organs that are there, voxel by voxel in float64."""
    batch, classes = logits.shape[:2]
    p = np.exp(logits.astype(float))
    p /= p.sum(axis=1, keepdims=True)
    costs, overlap, total, shown = [], np.zeros(classes), np.zeros(classes), np.zeros(classes, bool)
    for b in range(batch):
        for place in np.ndindex(*target.shape[1:]):
            share = p[(b, slice(None), *place)]
            merged = sum(share[c] for c in range(classes) if c == 0 or not known[b, c])
            organ = int(target[(b, *place)]) if known[b, target[(b, *place)]] else 0
            shown[organ] = True
            costs.append(-np.log(merged if organ == 0 else share[organ]))
            for c in range(1, classes):
                if known[b, c]:
                    overlap[c] += share[c] * (organ == c)
                    total[c] += share[c] + (organ == c)
    dice = [1 - 2 * overlap[c] / total[c] for c in range(1, classes) if shown[c]]
    return float(np.mean(costs) + (np.mean(dice) if dice else 0))


@pytest.mark.parametrize(
    "known",
    [
        [[1, 1, 1, 1], [1, 1, 1, 1]],
        [[1, 0, 1, 1], [1, 1, 1, 0]],
        [[1, 0, 1, 0], [1, 0, 0, 1]],
        [[1, 0, 0, 0], [1, 0, 0, 0]],
    ],
    ids=["all", "some", "one-nowhere", "none"],
)
def test_the_value_is_the_formula(known: list[list[int]]) -> None:
    logits, target = draw()
    flags = torch.tensor(known, dtype=torch.bool)
    wanted = by_hand(logits.numpy(), target.numpy(), flags.numpy())
    assert partial_dice_ce(logits, target, flags).item() == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def test_an_organ_that_the_batch_does_not_show_has_no_dice() -> None:
    """Only cross-entropy sees its false alarms; a Dice of nothing would be decided by its smoothing."""
    logits, target = draw()
    target[target == 2] = 1
    known = torch.ones(2, 4, dtype=torch.bool)
    p, onehot = logits.softmax(1), functional.one_hot(target, 4).movedim(-1, 1)
    overlap, total = ((x).sum((0, 2, 3, 4))[[1, 3]] for x in (p * onehot, p + onehot))
    wanted = functional.cross_entropy(logits, target) + (1 - 2 * overlap / total).mean()
    torch.testing.assert_close(partial_dice_ce(logits, target, known), wanted)


def test_merged_probabilities_sum_to_one() -> None:
    logits, _ = draw()
    plain = logits[0].softmax(0)
    p = merge_unknown(logits[0], torch.tensor([True, False, True, False])).exp()
    torch.testing.assert_close(p, torch.stack([plain[0] + plain[1] + plain[3], plain[2]]))
    torch.testing.assert_close(merge_unknown(logits[0], torch.ones(4, dtype=torch.bool)).exp(), plain)
    assert merge_unknown(logits.bfloat16()[0], torch.ones(4).bool()).dtype == torch.float32


def test_the_flags_are_not_changed() -> None:
    known = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    before = known.clone()
    partial_dice_ce(*draw(), known)
    assert torch.equal(known, before)


@pytest.mark.parametrize("drawn_as", [0, 2], ids=["background", "its-own-label"])
def test_finding_an_unknown_organ_costs_nothing(drawn_as: int) -> None:
    """The network is sure of organ 2 in a block; the case does not say where organ 2 is."""
    found = torch.zeros(1, *SHAPE, dtype=torch.long)
    found[:, 1:, 1:] = 2
    target = torch.where(found == 2, drawn_as, 0)
    logits = sure_of(found, 3).requires_grad_()
    loss = partial_dice_ce(logits, target, torch.tensor([[True, True, False]]))
    loss.backward()
    assert loss.item() < 1e-6
    assert logits.grad.abs().max() < 1e-6


def test_no_push_between_background_and_the_unknown_organ() -> None:
    """Also an unsure network is drawn neither to background nor to the unknown organ: both gain alike."""
    logits = torch.zeros(1, 3, *SHAPE, requires_grad=True)
    partial_dice_ce(logits, torch.zeros(1, *SHAPE, dtype=torch.long), torch.tensor([[True, True, False]])).backward()
    torch.testing.assert_close(logits.grad[:, 0], logits.grad[:, 2])


def test_finding_a_known_organ_where_it_is_not_costs() -> None:
    found = torch.full((1, *SHAPE), 2)
    nowhere = torch.zeros(1, *SHAPE, dtype=torch.long)
    logits = sure_of(found, 3).requires_grad_()
    loss = partial_dice_ce(logits, nowhere, torch.tensor([[True, True, True]]))
    loss.backward()
    assert loss.item() > 30
    assert logits.grad[:, 2].min() > 0  # downhill is away from organ 2


def test_a_perfect_prediction_costs_nothing() -> None:
    _, target = draw()
    assert partial_dice_ce(sure_of(target, 4), target, torch.ones(2, 4, dtype=torch.bool)).item() < 1e-5


def test_an_organ_known_in_one_case_is_learned_from_that_case() -> None:
    """Organ 1 is known in case 0 only: its place in case 1 changes nothing."""
    logits, target = draw(classes=2)
    known = torch.tensor([[1, 1], [1, 0]], dtype=torch.bool)
    other = target.clone()
    other[1] = 1 - other[1]
    assert partial_dice_ce(logits, target, known) == partial_dice_ce(logits, other, known)
    other[0] = 1 - other[0]
    assert partial_dice_ce(logits, target, known) != partial_dice_ce(logits, other, known)


def test_deep_heads_weigh_half_and_a_quarter() -> None:
    generator = torch.Generator().manual_seed(3)
    heads = [torch.randn(1, 3, n, n, n, generator=generator) for n in (8, 4, 2)]
    target = torch.randint(0, 3, (1, 2, 2, 2), generator=generator)
    # Blocks of 4: each coarser head sees exactly the same picture.
    full = target.repeat_interleave(4, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    half = target.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    known = torch.ones(1, 3, dtype=torch.bool)
    each = [partial_dice_ce(head, fit, known) for head, fit in zip(heads, (full, half, target), strict=True)]
    wanted = (4 * each[0] + 2 * each[1] + each[2]) / 7
    torch.testing.assert_close(deep_supervision_loss(heads, full, known), wanted)
    torch.testing.assert_close(deep_supervision_loss(heads[0], full, known), each[0])


def test_a_neglected_organ_weighs_more_until_it_is_found() -> None:
    """Organ 1 gets nil inside, organ 2 is certain, and organ 3 gets 0.5: 1 + 9 (1 - p)^4 times its cross-entropy."""
    target = torch.zeros(1, *SHAPE, dtype=torch.long)
    target[:, 0], target[:, 1], target[:, 2, :2] = 1, 2, 3
    p = sure_of(target, 4).softmax(1)
    p[:, :, 0] = torch.tensor([0.999, 0.001, 0.0, 0.0])[:, None, None]
    p[:, :, 2, :2] = torch.tensor([0.5, 0.0, 0.0, 0.5])[:, None, None]
    known = torch.ones(1, 4, dtype=torch.bool)
    logits = p.clamp(min=1e-12).log()
    plain, weighed = (partial_dice_ce(logits, target, known, Weights(neglected=n)) for n in (1.0, 10.0))
    voxels = target.numel()
    missed, half = -np.log(0.001) * 20 / voxels, -np.log(0.5) * 10 / voxels
    wanted = missed * 9 * 0.999**4 + half * 9 * 0.5**4
    assert float(weighed - plain) == pytest.approx(wanted, rel=1e-4)


def test_a_neglected_organ_draws_harder_by_its_weight_alone() -> None:
    """The gradient is that of cross-entropy, times the weight: nothing flows through the weight."""
    logits, target = draw(batch=1, classes=2)
    logits[:, 1] -= 8
    known = torch.ones(1, 2, dtype=torch.bool)
    inside = logits.softmax(1)[0, 1][target[0] == 1].mean()
    fixed = 1 + 9 * (1 - inside) ** 4
    slopes = []
    for weights in (Weights(neglected=10), Weights(torch.tensor([1.0, fixed]))):
        leaf = logits.clone().requires_grad_()
        partial_dice_ce(leaf, target, known, weights).backward()
        slopes.append(leaf.grad)
    assert fixed > 5
    torch.testing.assert_close(*slopes)


def test_an_unknown_organ_is_not_neglected() -> None:
    """Organ 1 is not contoured: what the network gives it changes nothing in the weights."""
    logits, target = draw(classes=3)
    target[target == 1] = 0
    known = torch.tensor([[True, False, True]] * 2)
    torch.testing.assert_close(
        partial_dice_ce(logits, target, known, Weights(neglected=10)),
        partial_dice_ce(logits, target, known, Weights(neglected=10, classes=torch.tensor([1.0, 99.0, 1.0]))),
    )
