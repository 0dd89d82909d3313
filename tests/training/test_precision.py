"""AutoMixedPrecision: the three numbers of the scale, by gradients that are made to overflow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.training import precision as precisions
from medseg.training.loop import LoopConfig
from medseg.training.precision import AutoMixedPrecision, fastest


class Machine:
    """One weight whose gradient is finite or not, at will."""

    def __init__(self, amp: AutoMixedPrecision) -> None:
        self.amp, self.weight = amp, nn.Parameter(torch.tensor(1.0))
        self.optimiser = torch.optim.SGD([self.weight], lr=0.5)

    def step(self, *, overflow: bool = False) -> float:
        self.optimiser.zero_grad()
        loss = self.weight * (float("inf") if overflow else 1.0)
        with self.amp.scale_loss(loss, self.optimiser) as scaled:
            scaled.backward()
        self.optimiser.step()
        return self.amp.scale


def test_the_scale_starts_halves_doubles_and_never_falls_below_the_floor() -> None:
    machine = Machine(AutoMixedPrecision(loss_scale=128, init_scale=1024, growth_interval=3))
    assert machine.amp.scale == 1024
    assert [machine.step(overflow=True) for _ in range(5)] == [512, 256, 128, 128, 128]
    assert machine.weight.item() == 1
    assert [machine.step() for _ in range(4)] == [128, 128, 256, 256]
    assert machine.weight.item() == pytest.approx(1 - 4 * 0.5)
    assert (machine.amp.good_steps, machine.amp.skipped_steps) == (4, 5)


def test_the_defaults_are_the_specifications() -> None:
    machine = Machine(AutoMixedPrecision())
    assert machine.amp.scale == 65536
    for _ in range(1999):
        machine.step()
    assert machine.amp.scale == 65536
    assert machine.step() == 131072


def test_without_an_initial_scale_it_stands_still() -> None:
    machine = Machine(AutoMixedPrecision(loss_scale=64, init_scale=None, growth_interval=1))
    assert [machine.step(), machine.step(overflow=True), machine.step()] == [64, 64, 64]
    assert machine.amp.skipped_steps == 1


@pytest.mark.parametrize(("init_scale", "wanted"), [(512, [0, 0, 1, 2, 0, 1]), (None, [1, 2, 3, 4, 0, 1])])
def test_overflows_at_the_lowest_scale_are_counted_while_they_follow_each_other(
    init_scale: float | None, wanted: list[int]
) -> None:
    machine = Machine(AutoMixedPrecision(loss_scale=128, init_scale=init_scale))
    found = []
    for overflow in (True, True, True, True, False, True):
        machine.step(overflow=overflow)
        found.append(machine.amp.helpless_steps)
    assert found == wanted
    resumed = AutoMixedPrecision(loss_scale=128, init_scale=init_scale)
    resumed.load_state_dict(machine.amp.state_dict())
    assert resumed.helpless_steps == wanted[-1]


def test_gradients_have_their_true_size_after_the_block() -> None:
    machine = Machine(AutoMixedPrecision(init_scale=1024))
    with machine.amp.scale_loss(3 * machine.weight, machine.optimiser, delay_unscale=True) as scaled:
        assert scaled.item() == 3 * 1024
        scaled.backward()
    assert machine.weight.grad is not None
    assert machine.weight.grad.item() == 3 * 1024
    with machine.amp.scale_loss(machine.weight.clone(), machine.optimiser) as scaled:
        scaled.backward()
    assert machine.weight.grad.item() == 4
    assert machine.amp.good_steps == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_other_precisions_scale_nothing(precision: str) -> None:
    machine = Machine(AutoMixedPrecision(precision=precision))  # type: ignore[arg-type]
    assert machine.step() == 1
    assert machine.weight.item() == 0.5


def test_the_share_of_half_precision_work_is_counted() -> None:
    amp = AutoMixedPrecision(precision="bf16")
    x = torch.randn(4, 8)
    with amp.measure(), amp.autocast():
        hidden = nn.Linear(8, 8)(x)
        assert hidden.dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            nn.Linear(8, 24)(hidden.float())
    assert amp.half_share == pytest.approx(8 / 32)
    assert amp.report()["half_share"] == 0.25


def test_fp16_computes_in_half() -> None:
    amp = AutoMixedPrecision()
    with amp.autocast():
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == torch.float16


def test_its_state_comes_back() -> None:
    machine = Machine(AutoMixedPrecision(init_scale=1024, growth_interval=2))
    machine.step(overflow=True)
    machine.step()
    fresh = AutoMixedPrecision(init_scale=1024, growth_interval=2)
    fresh.load_state_dict(machine.amp.state_dict())
    assert fresh.report() == machine.amp.report()
    other = Machine(fresh)
    assert other.step() == 1024  # the second good step in a row


def test_scales_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="init_scale >= loss_scale"):
        AutoMixedPrecision(loss_scale=128, init_scale=64)


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("pays", "wanted"), [(True, "bf16"), (False, "fp32")])
def test_the_fastest_precision_of_a_processor(monkeypatch: pytest.MonkeyPatch, *, pays: bool, wanted: str) -> None:
    monkeypatch.setattr(precisions, "bf16_pays", lambda: pays)
    assert fastest(CPU) == wanted


@pytest.mark.parametrize(("has", "wanted"), [(True, "bf16"), (False, "fp16")])
def test_the_fastest_precision_of_a_gpu(monkeypatch: pytest.MonkeyPatch, *, has: bool, wanted: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has or including_emulation)
    assert fastest(GPU) == wanted


def test_auto_is_the_fastest_and_what_is_named_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "bf16_pays", lambda: True)
    chosen = [AutoMixedPrecision.from_config(LoopConfig(precision=p), CPU).precision for p in ("auto", "fp32", "fp64")]
    assert chosen == ["bf16", "fp32", "fp64"]
    assert AutoMixedPrecision.from_config(LoopConfig(), CPU, "fp32").precision == "fp32"


def test_a_device_that_nobody_measured_computes_in_fp32() -> None:
    assert fastest(torch.device("meta")) == "fp32"
