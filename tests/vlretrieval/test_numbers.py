"""NumberEncoding: bins of equal counts, filled up to a number; what a sum of curves can tell."""

from __future__ import annotations

import torch

from vlretrieval.numbers import Additive, NumberEncoding


def test_bins_below_a_number_are_full_and_its_own_in_part() -> None:
    encoding = NumberEncoding(1, bins=4)
    encoding.fit(torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]]))
    seen = encoding(torch.tensor([[-5.0], [0.0], [1.5], [4.0], [9.0]]))[:, 0]
    assert seen.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0.5, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_every_number_has_a_scale_of_its_own_by_what_is_usual() -> None:
    numbers = torch.stack([torch.arange(101.0), torch.arange(101.0) ** 2], dim=1).view(101, 1, 2)
    encoding = NumberEncoding(1, 2, bins=2)
    encoding.fit(numbers)
    assert encoding.edges.tolist() == [[[0, 50, 100], [0, 2500, 10000]]]
    assert encoding(torch.tensor([[[50.0, 2500.0]]])).tolist() == [[[[1, 0], [1, 0]]]]


def test_numbers_that_are_mostly_equal_make_steps_and_nothing_infinite() -> None:
    encoding = NumberEncoding(1, bins=3)
    encoding.fit(torch.tensor([[2.5]] * 9 + [[3.0]]))
    seen = encoding(torch.tensor([[2.4], [2.5], [2.6], [3.0]]))
    assert torch.isfinite(seen).all()
    assert [seen[0].sum(), seen[3].sum()] == [0, 3]
    assert seen[1].sum() < seen[2].sum()


def test_scales_travel_with_the_weights() -> None:
    first, second = Additive((3,), 2), Additive((3,), 2)
    first.encoding.fit(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    second.load_state_dict(first.state_dict())
    numbers = torch.tensor([[0.3, -0.2, 1.0]])
    assert torch.equal(first(numbers), second(numbers))


def test_a_sum_of_curves_learns_what_lies_in_the_middle() -> None:
    rng = torch.Generator().manual_seed(1)
    numbers = torch.rand(600, 2, generator=rng)
    middle = ((numbers[:, 0] > 0.4) & (numbers[:, 0] < 0.6)).float()
    torch.manual_seed(2)
    curves = Additive((2,), 1)
    curves.encoding.fit(numbers)
    optimiser = torch.optim.Adam(curves.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(curves(numbers)[:, 0], middle).backward()
        optimiser.step()
    right = (curves(numbers)[:, 0] > 0) == (middle > 0)
    assert right.float().mean() > 0.95
