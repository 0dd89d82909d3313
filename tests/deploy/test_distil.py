"""The fine-tune: a network that lost something gets nearer to what it was, without contours."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from medseg.deploy.distil import distil, divergence
from medseg.errors import Cancelled, DataError
from medseg.inference.backends.measure import relative_error
from medseg.networks.optimized_unet import Optimized3DUNet


def tiles(count: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 1, 16, 16, 8, generator=generator) * 4 - 1 for _ in range(count)]


@pytest.fixture
def teacher() -> nn.Module:
    torch.manual_seed(3)
    network = Optimized3DUNet(out_channels=3, channels=[4, 8])
    for tile in tiles():
        network(tile)  # batch norm's statistics
    return network.eval()


def damaged(network: nn.Module) -> nn.Module:
    student = deepcopy(network)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.1 * weight.std() * torch.randn_like(weight) if weight.ndim > 1 else 0)
    return student


def test_the_student_comes_nearer_and_nothing_else_moves(teacher: nn.Module) -> None:
    student, before = damaged(teacher), {name: value.clone() for name, value in teacher.state_dict().items()}
    statistics = {name: value.clone() for name, value in student.named_buffers()}
    unseen = torch.rand(1, 1, 16, 16, 8, generator=torch.Generator().manual_seed(9)) * 4 - 1
    with torch.no_grad():
        lost = relative_error(student(unseen), teacher(unseen))
    losses: list[float] = []
    distil(student, teacher, tiles(), steps=80, learning_rate=1e-3, on_step=lambda _, loss: losses.append(loss))
    with torch.no_grad():
        left = relative_error(student(unseen), teacher(unseen))
    assert left < 0.7 * lost
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert not student.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(torch.equal(value, statistics[name]) for name, value in student.named_buffers())


def test_the_divergence_is_that_of_torch_where_organs_are() -> None:
    generator = torch.Generator().manual_seed(2)
    one, other = (torch.randn(2, 4, 5, 6, 7, generator=generator).log_softmax(1) for _ in range(2))
    expected = nn.functional.kl_div(one, other, reduction="none", log_target=True).sum(1).mean()
    torch.testing.assert_close(divergence(one, other), expected)
    sure = torch.zeros(1, 2, 3, 3, 3)
    sure[:, 0] = 20.0
    assert divergence(sure.log_softmax(1), sure.log_softmax(1)) == 0


def test_without_tiles_or_with_broken_ones_it_says_so(teacher: nn.Module) -> None:
    with pytest.raises(DataError, match="no tiles"):
        distil(deepcopy(teacher), teacher, [])
    with pytest.raises(DataError, match="not finite"):
        distil(deepcopy(teacher), teacher, [torch.full((1, 1, 16, 16, 8), float("nan"))], steps=1)


def test_it_can_be_stopped(teacher: nn.Module) -> None:
    def stop(step: int, _: float) -> None:
        if step == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        distil(damaged(teacher), teacher, tiles(), steps=100, on_step=stop)
