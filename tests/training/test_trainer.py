"""The loop: resumes bit for bit, learns, and stops where it must."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medseg.errors import ConfigError, DataError
from medseg.labels import LabelTable
from medseg.training.cases import TrainingCase
from medseg.training.patches import PatchSampler, batches
from medseg.training.trainer import Trainer, learning_rate
from tests.training.conftest import TINY, config, tensors_of


class Setup:
    """Makes trainers on the phantoms that differ in a few settings."""

    def __init__(self, cases: list[TrainingCase], table: LabelTable) -> None:
        self.cases, self.table, self.said = cases, table, []

    def __call__(self, folder: Path, **changes: Any) -> Trainer:
        settings = config(**changes)
        return Trainer(PatchSampler(self.cases, settings, self.table), settings, folder, self.said.append)


@pytest.fixture
def make(cases: list[TrainingCase], table: LabelTable) -> Setup:
    return Setup(cases, table)


def advance(trainer: Trainer, stop: int) -> None:
    """Steps up to `stop`, and a checkpoint there: a run that was interrupted."""
    for step, batch in batches(trainer.sampler, trainer.step, stop):
        trainer.train_step(step, batch)
        trainer.step = step + 1
    trainer.save()


def everything(trainer: Trainer) -> dict[str, Tensor]:
    slots = trainer.optimiser.state_dict()["state"]
    optimiser = {f"{index}.{key}": value for index, slot in slots.items() for key, value in slot.items()}
    return {
        **{f"n.{name}": tensor for name, tensor in tensors_of(trainer.network).items()},
        **{f"a.{name}": tensor for name, tensor in tensors_of(trainer.average).items()},
        **optimiser,
    }


def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(make: Setup, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    whole.run()
    advance(make(tmp_path / "halves"), 5)
    second = make(tmp_path / "halves")
    second.resume()
    assert second.step == 5
    second.run()
    assert second.step == whole.step == 10
    ours, theirs = everything(second), everything(whole)
    assert set(ours) == set(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert "resumed at step 5" in make.said


def test_without_a_checkpoint_resume_starts(make: Setup, tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.resume()
    assert trainer.step == 0
    assert make.said == []


def test_a_finished_run_takes_no_further_step(make: Setup, tmp_path: Path) -> None:
    first = make(tmp_path, max_steps=2)
    first.run()
    again = make(tmp_path, max_steps=2)
    again.resume()
    before = everything(again)
    again.run()
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(again).items())


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "seed"), ({"learning_rate": 0.1, "patch_size": [8, 8, 8]}, "patch_size, learning_rate")],
)
def test_settings_cannot_change_within_a_run(make: Setup, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    advance(make(tmp_path), 1)
    with pytest.raises(ConfigError, match=f"other settings: {named}\\. Put them back"):
        make(tmp_path, **change).resume()


def test_a_run_may_be_made_longer_and_says_so(make: Setup, tmp_path: Path) -> None:
    advance(make(tmp_path), 1)
    longer = make(tmp_path, max_steps=20, card={"title": "Longer"}, checkpoint_minutes=1)
    longer.resume()
    assert longer.step == 1
    assert any("ends at step 20" in line for line in make.said)


def test_it_learns_one_phantom_by_heart(make: Setup, tmp_path: Path) -> None:
    make.cases = make.cases[:1]
    trainer = make(tmp_path, max_steps=50, learning_rate=0.01, ema_decay=0.9, foreground_share=1)
    average = trainer.run()
    losses = [entry["loss"] for entry in trainer.log]
    assert [entry["step"] for entry in trainer.log] == [25, 50]
    assert losses[1] < 0.8 * losses[0]
    assert not average.training
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == trainer.log
    assert make.said[0].startswith("step 25/50  loss ")
    assert make.said[-1].endswith("0 min left")


def test_checkpoints_are_written_on_the_way(make: Setup, tmp_path: Path) -> None:
    trainer = make(tmp_path, max_steps=2, checkpoint_minutes=1e-9)
    seen = []
    save = trainer.save
    trainer.save = lambda: (seen.append(trainer.step), save())  # type: ignore[method-assign]
    trainer.run()
    assert seen == [1, 2, 2]


def test_a_loss_that_is_not_finite_names_the_cases(make: Setup, tmp_path: Path) -> None:
    trainer = make(tmp_path)
    with torch.no_grad():
        trainer.network.head.bias.fill_(float("nan"))
    batch = trainer.sampler.batch(3)
    with pytest.raises(DataError, match=f"Loss is not finite at step 3; cases {', '.join(batch.ids)}"):
        trainer.train_step(3, batch)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_spoiled(make: Setup, tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.network.head.bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DataError, match="Gradient is not finite at step 0; cases "):
        trainer.train_step(0, trainer.sampler.batch(0))
    assert all(torch.isfinite(tensor).all() for tensor in trainer.network.state_dict().values())


def test_half_precision_steps_are_finite(make: Setup, tmp_path: Path) -> None:
    trainer = make(tmp_path, precision="bf16")
    loss = trainer.train_step(0, trainer.sampler.batch(0))
    assert 0.5 < loss < 5
    assert all(tensor.dtype != torch.bfloat16 for tensor in trainer.network.state_dict().values())


def test_the_average_forgets_the_random_start(make: Setup, tmp_path: Path) -> None:
    """After the first step 0.9 of the average is the new network; counters are copied."""
    trainer = make(tmp_path)
    start = tensors_of(trainer.network)
    trainer.train_step(0, trainer.sampler.batch(0))
    now, average = tensors_of(trainer.network), tensors_of(trainer.average)
    for name, tensor in average.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.1 * start[name] + 0.9 * now[name])
        else:
            assert torch.equal(tensor, now[name])


def test_patches_must_divide_into_the_networks_levels(make: Setup, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="patch_size: 16 x 18 x 16 does not divide by 4"):
        make(tmp_path, patch_size=[16, 18, 16], network={"options": {"channels": [2, 4, 4]}})


def test_the_head_has_a_channel_for_every_label(make: Setup, tmp_path: Path) -> None:
    trainer = make(tmp_path, network={"options": TINY | {"out_channels": 99}})
    assert trainer.network.head.out_channels == 4


def test_the_learning_rate_warms_up_peaks_and_ends() -> None:
    settings = config(max_steps=102, warmup_steps=2, learning_rate=0.1)
    rates = [learning_rate(step, settings) for step in range(103)]
    assert rates[:3] == [0.05, 0.1, 0.1]
    assert rates[52] == pytest.approx(0.05)
    assert all(a >= b for a, b in pairwise(rates[1:]))
    assert rates[101] < 1e-4
    assert rates[102] == learning_rate(10_000, settings) == 0


def test_without_warm_up_it_starts_at_its_peak() -> None:
    assert learning_rate(0, config(warmup_steps=0, learning_rate=0.1)) == 0.1
    assert learning_rate(1, config(warmup_steps=1, max_steps=1)) == config().learning_rate


def test_the_optimiser_gets_that_rate(make: Setup, tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.train_step(8, trainer.sampler.batch(8))
    assert trainer.optimiser.param_groups[0]["lr"] == learning_rate(8, trainer.config)
