"""The loop: resumes bit for bit, learns, and stops where it must. Knows no scans."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg.errors import Cancelled, ConfigError, DataError, OutputError, ResourceError, WorkerError
from medseg.training import trainer as trainers
from medseg.training.checkpoint import LAST, PREVIOUS
from medseg.training.journal import StepRecord, read_journal
from medseg.training.schedule import rate_factor, seconds_left, share_done
from medseg.training.trial import require_precision
from tests.training.conftest import tensors_of
from tests.training.ranks import outcome
from tests.training.test_checkpoint import no_file_above
from tests.training.toys import LineTask, line_trainer, loop


class Interruption:
    """Asks to stop after some steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def interrupted(folder: Path, after: int, **changes: Any) -> None:
    with pytest.raises(Cancelled, match=f"Stopped at step {after} of .*--resume"):
        line_trainer(folder, stop=Interruption(after), **changes).run()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path: Path, workers: int) -> None:
    whole, said = line_trainer(tmp_path / "whole"), []
    whole.run()
    interrupted(tmp_path / "halves", 5, workers=workers)
    second = line_trainer(tmp_path / "halves", said=said, workers=workers)
    assert second.resume()
    assert second.step == 5
    second.run()
    assert second.step == 10
    assert (tmp_path / "whole" / LAST).read_bytes() == (tmp_path / "halves" / LAST).read_bytes()
    assert said[0] == "resumed at step 5"


@pytest.mark.parametrize("began", [True, False])
def test_what_a_kill_left_of_a_checkpoint_is_swept(tmp_path: Path, *, began: bool) -> None:
    if began:
        interrupted(tmp_path, 1)
    kept = [".part-x1-else.safetensors", "my-last.safetensors"]
    for name in (".part-ab12_x-last.safetensors", *kept):
        (tmp_path / name).write_bytes(b"half")
    assert line_trainer(tmp_path).resume() is began
    assert {path.name for path in tmp_path.iterdir()} - {LAST, PREVIOUS, "log.jsonl"} == set(kept)


def test_aggregated_batches_resume_bit_for_bit_too(tmp_path: Path) -> None:
    line_trainer(tmp_path / "whole", gradient_aggregation_interval=3).run()
    interrupted(tmp_path / "halves", 4, gradient_aggregation_interval=3)
    second = line_trainer(tmp_path / "halves", gradient_aggregation_interval=3)
    second.resume()
    second.run()
    assert (tmp_path / "whole" / LAST).read_bytes() == (tmp_path / "halves" / LAST).read_bytes()


def test_aggregation_steps_like_one_large_batch(tmp_path: Path) -> None:
    """Two batches of two points are one of four: the mean of their gradients."""

    class Halves(LineTask):
        def batch(self, number: int) -> Any:
            whole = LineTask(4).batch(number // 2)
            rows = slice(2 * (number % 2), 2 * (number % 2) + 2)
            return type(whole)(whole.x[rows], whole.y[rows], whole.ids)

    one = line_trainer(tmp_path / "1", LineTask(dropout=0)).run()
    two = line_trainer(tmp_path / "2", Halves(dropout=0), gradient_aggregation_interval=2).run()
    for ours, theirs in zip(tensors_of(two).values(), tensors_of(one).values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_without_a_checkpoint_resume_starts(tmp_path: Path) -> None:
    trainer, said = line_trainer(tmp_path), []
    assert not trainer.resume()
    assert trainer.step == 0
    assert said == []


def test_a_finished_run_takes_no_further_step(tmp_path: Path) -> None:
    line_trainer(tmp_path).run()
    before = (tmp_path / LAST).read_bytes()
    again = line_trainer(tmp_path)
    again.resume()
    again.run()
    assert (tmp_path / LAST).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, r"loop\.seed"), ({"learning_rate": 0.1, "size": 2}, r"loop\.learning_rate, size")],
)
def test_settings_cannot_change_within_a_run(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    interrupted(tmp_path, 1)
    task = LineTask(change.pop("size", 4))
    with pytest.raises(ConfigError, match=f"other settings: {named}\\. Put them back"):
        line_trainer(tmp_path, task, **change).resume()


def test_a_run_may_be_made_longer_and_says_so(tmp_path: Path) -> None:
    interrupted(tmp_path, 1)
    said: list[str] = []
    longer = line_trainer(tmp_path, said=said, max_steps=20, checkpoint_minutes=1)
    longer.resume()
    assert longer.step == 1
    assert any("ends at step 20" in line for line in said)


def test_it_learns_and_writes_it_down(tmp_path: Path) -> None:
    said: list[str] = []
    records: list[StepRecord] = []
    task = LineTask()
    trainer = line_trainer(tmp_path, task, said=said, watchers=[records.append], max_steps=50, validate_steps=20)
    network = trainer.run()
    assert not network.training
    entries = read_journal(tmp_path)
    assert entries == trainer.journal.entries
    losses = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in losses] == [25, 50]
    assert losses[1]["loss"] < 0.8 * losses[0]["loss"]
    assert losses[0]["parts"]["root"] == pytest.approx(sum(r.parts["root"] for r in records[:25]) / 25)
    assert losses[0]["seconds"] == pytest.approx(sum(r.seconds for r in records[:25]), abs=1e-3)
    assert [entry["step"] for entry in entries if "validation" in entry] == task.validated == [20, 40, 50]
    assert any(line.startswith("step 25/50  loss ") for line in said)
    assert any(line.startswith("at_half ") for line in said)


def test_without_an_average_the_network_itself_is_the_result(tmp_path: Path) -> None:
    trainer = line_trainer(tmp_path, ema_decay=None)
    assert trainer.run() is trainer.network
    again = line_trainer(tmp_path, ema_decay=None)
    assert again.resume()


def test_checkpoints_are_written_on_the_way(tmp_path: Path) -> None:
    trainer = line_trainer(tmp_path, max_steps=2, checkpoint_minutes=1e-9)
    trainer.run()
    assert [entry["step"] for entry in read_journal(tmp_path) if "saved" in entry] == [1, 2, 2]
    assert (tmp_path / PREVIOUS).is_file()


def test_a_full_disk_on_the_way_does_not_stop_training_and_one_at_the_end_does(tmp_path: Path) -> None:
    said: list[str] = []
    trainer = line_trainer(tmp_path, said=said, checkpoint_minutes=1e-9)
    with no_file_above(1000), pytest.raises(OutputError, match=r"last\.safetensors could not be written"):
        trainer.run()
    assert trainer.step == 10
    assert any("Training goes on" in line for line in said)
    trainer.save()
    assert [entry["step"] for entry in read_journal(tmp_path)][-1] == 10


def test_a_log_line_that_a_kill_cut_off_and_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    interrupted(tmp_path, 5, log_steps=1)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": 0.1}\n{"step": 7, "lo')
    second = line_trainer(tmp_path, log_steps=1)
    second.resume()
    assert second.seconds > 0
    second.run()
    assert [entry["step"] for entry in read_journal(tmp_path) if "loss" in entry] == list(range(1, 11))


def test_a_loss_that_is_not_finite_names_the_cases(tmp_path: Path) -> None:
    task = LineTask(spoil=lambda number, y: y * float("nan") if number == 3 else y)
    with pytest.raises(DataError, match=r"Loss is not finite at step 3; cases p3\.0, p3\.1"):
        line_trainer(tmp_path, task).run()


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_spoiled(tmp_path: Path) -> None:
    trainer = line_trainer(tmp_path)
    trainer.network[0].bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DataError, match="Gradient is not finite at step 0; cases "):
        trainer.run()
    assert all(torch.isfinite(tensor).all() for tensor in trainer.network.state_dict().values())


@pytest.mark.parametrize(("init_scale", "step"), [(512, 11), (None, 9)])
def test_in_fp16_a_gradient_that_stays_not_finite_at_the_lowest_scale_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init_scale: float | None, step: int
) -> None:
    monkeypatch.setattr(trainers, "require_precision", lambda precision, device: None)
    trainer = line_trainer(tmp_path, precision="fp16", init_scale=init_scale, max_steps=30)
    trainer.network[0].bias.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(DataError, match=rf"Gradient is not finite at step {step}; cases p{step}\.0"):
        trainer.run()


def test_a_gradient_that_is_not_finite_names_the_cases_of_all_batches_of_its_step(tmp_path: Path) -> None:
    trainer = line_trainer(tmp_path, gradient_aggregation_interval=2)
    trainer.network[0].bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DataError, match=r"at step 0; cases p0\.0, p0\.1, p1\.0, p1\.1\."):
        trainer.run()


def test_too_little_memory_of_the_gpu_is_said_in_words(tmp_path: Path) -> None:
    class Large(LineTask):
        def loss(self, network: nn.Module, batch: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    words = r"memory does not suffice at step 0\. Take a smaller patch_size or batch_size, or the option recompute"
    with pytest.raises(ResourceError, match=words) as caught:
        line_trainer(tmp_path, Large()).run()
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_so_is_too_little_of_it_for_the_network_alone(tmp_path: Path) -> None:
    class Large(LineTask):
        def build(self) -> nn.Module:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with pytest.raises(ResourceError, match=r"memory does not suffice at step 0\."):
        line_trainer(tmp_path, Large())


def test_an_error_in_a_worker_that_prepares_batches_keeps_its_words(tmp_path: Path) -> None:
    def spoil(number: int, y: Tensor) -> Tensor:
        raise DataError(f"No batch {number}.", advice="Ask for another.")

    with pytest.raises(DataError, match=r"^No batch 0\. Ask for another\.$"):
        line_trainer(tmp_path, LineTask(spoil=spoil), workers=1).run()


def test_the_average_forgets_the_random_start(tmp_path: Path) -> None:
    """After the first step 0.9 of the average is the new network."""
    trainer = line_trainer(tmp_path, max_steps=1)
    start = tensors_of(trainer.network)
    trainer.run()
    now = tensors_of(trainer.network)
    for name, tensor in tensors_of(trainer.average).items():
        torch.testing.assert_close(tensor, 0.1 * start[name] + 0.9 * now[name])


def test_the_average_moves_a_tensor_with_two_names_once(tmp_path: Path) -> None:
    class Tied(LineTask):
        def build(self) -> nn.Module:
            layer = nn.Linear(1, 1)
            return nn.Sequential(layer, nn.Tanh(), layer)

    trainer = line_trainer(tmp_path, Tied(), max_steps=1)
    start = tensors_of(trainer.network)
    trainer.run()
    now = tensors_of(trainer.network)
    assert len(now) == 4
    for name, tensor in tensors_of(trainer.average).items():
        torch.testing.assert_close(tensor, 0.1 * start[name] + 0.9 * now[name])


def test_half_precision_steps_are_finite_and_counted(tmp_path: Path) -> None:
    # In a process of its own: a processor whose kernels end it must not take the other tests along.
    try:
        require_precision("bf16", torch.device("cpu"))
    except ConfigError as error:
        pytest.skip(str(error))
    [done] = outcome("half", tmp_path, world=1)
    assert done["types"] == ["torch.float32"]
    assert done["report"] == {
        "precision": "bf16", "scale": 1.0, "good_steps": 10, "skipped_steps": 0, "half_share": 1.0
    }  # fmt: skip


@pytest.mark.parametrize(("began", "elsewhere"), [("fp16", "fp32"), ("fp32", "fp16")])
def test_a_run_keeps_the_precision_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: str, elsewhere: str
) -> None:
    monkeypatch.setattr(trainers, "fastest", lambda device: began)
    interrupted(tmp_path, 5, precision="auto")
    monkeypatch.setattr(trainers, "fastest", lambda device: elsewhere)
    second = line_trainer(tmp_path, precision="auto")
    assert second.amp.precision == elsewhere
    second.resume()
    second.run()
    assert second.amp.precision == began
    assert second.amp.good_steps + second.amp.skipped_steps == 10


@pytest.mark.parametrize("known", [True, False])
def test_memory_is_spared_where_the_system_can_and_said_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(trainers, "give_back_at_once", lambda: asked.append(known) or known)
    said: list[str] = []
    line_trainer(tmp_path / "ordinary").run()
    assert asked == []
    line_trainer(tmp_path / "spared", said=said, spare_memory=True).run()
    assert asked == [known]
    assert any("spare_memory" in line for line in said) is not known


def test_what_a_worker_raises_is_not_taken_for_its_end(tmp_path: Path) -> None:
    class Broken(LineTask):
        def batch(self, number: int) -> Any:
            raise RuntimeError("a transform does not fit")

    with pytest.raises(RuntimeError, match="a transform does not fit"):
        line_trainer(tmp_path, Broken(), workers=1).run()


@pytest.mark.parametrize("busy", [True, False])
def test_a_worker_that_is_killed_is_said_in_words_whatever_the_network_does(tmp_path: Path, *, busy: bool) -> None:
    """In the midst of a step, or while it is waited for."""

    class Killed(LineTask):
        def batch(self, number: int) -> Any:
            if not busy and number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().batch(number)

        def loss(self, network: nn.Module, batch: Any) -> Any:
            for worker in multiprocessing.active_children() if busy else ():
                worker.kill()
                worker.join(10)
            return super().loss(network, batch)

    with pytest.raises(WorkerError, match=r"prepares training batches ended by itself.*loop\.workers to 0"):
        line_trainer(tmp_path, Killed(), workers=1).run()


def test_settings_are_compared_before_weights(tmp_path: Path) -> None:
    line_trainer(tmp_path, ema_decay=None).run()
    with pytest.raises(ConfigError, match=r"other settings: loop\.ema_decay"):
        line_trainer(tmp_path, ema_decay=0.9, max_steps=20).resume()


def test_groups_have_their_own_rate(tmp_path: Path) -> None:
    class Slow(LineTask):
        def groups(self, network: Any) -> list[dict[str, Any]]:
            return [{"params": network[0].parameters(), "scale": 0.1}, {"params": network[3].parameters()}]

    trainer = line_trainer(tmp_path, Slow(), optimiser="sgd", momentum=0)
    trainer.run()
    slow, fast = trainer.optimiser.param_groups
    assert slow["lr"] == pytest.approx(0.1 * fast["lr"])


def test_a_run_with_a_time_limit_ends_with_it_and_its_rate_is_nearly_nil(tmp_path: Path) -> None:
    trainer = line_trainer(tmp_path, max_steps=10**6, max_minutes=0.5 / 60)
    trainer.run()
    assert 0.5 <= trainer.seconds < 5
    assert trainer.optimiser.param_groups[0]["lr"] < 0.2 * trainer.config.learning_rate


def test_the_learning_rate_warms_up_peaks_and_ends() -> None:
    settings = loop(max_steps=102, warmup_steps=2)
    factors = [rate_factor(step, share_done(step, 0, settings), settings) for step in range(103)]
    assert factors[:3] == [0.5, 1, 1]
    assert factors[52] == pytest.approx(0.5)
    assert all(a >= b for a, b in pairwise(factors[1:]))
    assert factors[101] < 1e-3
    assert factors[102] == 0


@pytest.mark.parametrize(("schedule", "half"), [("poly", 0.5**0.9), ("constant", 1.0), ("cosine", 0.5)])
def test_schedules_at_half_time(schedule: str, half: float) -> None:
    settings = loop(schedule=schedule, warmup_steps=0, max_steps=100)
    assert rate_factor(50, 0.5, settings) == pytest.approx(half)
    assert rate_factor(0, 0, settings) == 1


def test_the_time_left_is_that_of_the_latest_pace_and_of_the_limit() -> None:
    assert seconds_left(50, 1e9, 2.0, loop(max_steps=100)) == 100  # an hour's pause or a slow start do not count
    assert seconds_left(50, 45, 2.0, loop(max_steps=100, max_minutes=1)) == 15
    assert seconds_left(50, 10, 0.5, loop(max_steps=100, max_minutes=1)) == 25
    assert seconds_left(50, 61, 0.5, loop(max_steps=100, max_minutes=1)) == 0


def test_time_counts_where_it_is_further_on_than_steps() -> None:
    settings = loop(max_steps=100, max_minutes=1)
    assert share_done(50, 15, settings) == 0.5
    assert share_done(50, 45, settings) == 0.75
    assert share_done(50, 1e9, settings) == 1
    assert math.isclose(share_done(50, 1e9, loop(max_steps=100)), 0.5)
