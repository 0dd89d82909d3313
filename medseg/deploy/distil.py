"""A short fine-tune without contours: a network that was changed learns what the network before the change says.

Knowledge distillation (Hinton et al., 2015) on the tiles that calibrate int8 anyway: the divergence of the two
softmax maps, counted where either sees an organ. Normalisation layers keep their statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from medseg.errors import DataError
from medseg.training.precision import fastest

STEPS = 200
LEARNING_RATE = 1e-4  # with 5e-4 the shipped network went away from its teacher, see decision 7
BACKGROUND = 0.99  # voxels that both call background with this probability teach nothing


def distil(
    student: nn.Module,
    teacher: nn.Module,
    tiles: Sequence[Tensor],
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    on_step: Callable[[int, float], None] = lambda _, __: None,
) -> nn.Module:
    """Train `student` in place towards `teacher`; it comes back in evaluation mode.

    Args:
        student: the changed network; every parameter that requires a gradient moves.
        teacher: the network that it came from, left as it is.
        tiles: float32 [1, 1, i, j, k], normalised; drawn at random, one a step, half of them mirrored front to back
            and up and down by turns, never left to right.
        steps: how many.
        learning_rate: of AdamW at first; half a cosine takes it to zero.
        seed: of the order.
        on_step: gets the step's number and its loss, and may raise to stop.

    Raises:
        DataError: there are no tiles, or the loss is not finite.
    """
    if not tiles:
        raise DataError("There are no tiles to fine-tune with.")
    student, teacher = student.eval(), teacher.eval()
    optimiser = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    half = fastest(next(student.parameters()).device) == "bf16"
    for step in range(steps):
        tile = _varied(tiles[int(torch.randint(len(tiles), (), generator=generator))], step)
        loss = _step(student, teacher, tile, optimiser, half=half)
        schedule.step()
        on_step(step, loss)
    return student


def _varied(tile: Tensor, step: int) -> Tensor:
    return tile.flip([] if step % 2 else [3 + step // 2 % 2])


def _step(
    student: nn.Module, teacher: nn.Module, tile: Tensor, optimiser: torch.optim.Optimizer, *, half: bool
) -> float:
    device = next(student.parameters()).device
    tile = tile.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        with torch.no_grad():
            wanted = teacher(tile).float().log_softmax(dim=1)
        given = student(tile).float().log_softmax(dim=1)
    loss = divergence(given, wanted)
    if not torch.isfinite(loss):
        raise DataError("The loss of the fine-tune is not finite.", advice="Are the tiles of this model?")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def divergence(given: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of two maps of log-probabilities [B, C, ...], a mean over voxels with an organ."""
    each = (wanted.exp() * (wanted - given)).sum(dim=1)
    background = torch.minimum(given[:, 0], wanted[:, 0]).exp()
    matters = (background < BACKGROUND).float()
    return (each * matters).sum() / matters.sum().clamp_min(1.0)
