"""The preset that needs no data, as users start it: processes that are killed, go on, and end bit for bit alike."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from medseg.errors import DataError, WorkerError
from medseg.models.store import CARD, load_model, read_card
from medseg.training.cases import load_cases, read_index
from medseg.training.checkpoint import LAST
from medseg.training.config import PRESETS, PhantomConfig
from medseg.training.journal import read_journal
from medseg.training.phantoms import LABELS, draw_phantom, write_phantoms
from medseg.training.run import train_model
from tests.training.ranks import free_port, wait_until


def start(out: Path, steps: int = 30, **variables: str) -> subprocess.Popen[str]:
    """The command with a checkpoint after nearly every step."""
    values = yaml.safe_load((PRESETS / "smoke.yaml").read_text())
    values["loop"]["checkpoint_minutes"] = 1e-3
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(values))
    options = ("--max-steps", str(steps), "--seed", "5", "--resume")
    return subprocess.Popen(
        [sys.executable, "-m", "medseg", "train", str(config), "-o", str(out), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(out: Path) -> str:
    process = start(out)
    said, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    finish(out)
    return out


def test_a_run_without_data_ends_in_a_scored_package_that_loads(whole: Path) -> None:
    package = load_model(whole / "package")
    assert package.card.name == "smoke"
    assert set(package.card.metrics["organs"]) == set(LABELS)
    assert package.card.training["cases"] == 8
    assert str(whole) not in (whole / "package" / CARD).read_text()


@pytest.mark.slow
def test_killed_at_a_random_moment_it_ends_bit_for_bit_alike(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_until((tmp_path / LAST).is_file)
    time.sleep(random.uniform(0, 0.5))
    process.kill()
    assert process.wait() == -9  # not ended by itself before
    process.communicate()
    assert "resumed at step" in finish(tmp_path)
    assert (tmp_path / LAST).read_bytes() == (whole / LAST).read_bytes()


@pytest.mark.slow
def test_killed_at_five_random_moments_it_ends_bit_for_bit_alike(whole: Path, tmp_path: Path) -> None:
    """The first kills come before anything is written, the last ones between two checkpoints."""
    moments = random.Random(20)
    for turn in range(5):
        process = start(tmp_path)
        if turn > 1:
            wait_until((tmp_path / LAST).is_file)
        time.sleep(moments.uniform(0, 4))
        process.kill()
        process.communicate()
    finish(tmp_path)
    assert (tmp_path / LAST).read_bytes() == (whole / LAST).read_bytes()


@pytest.mark.slow
def test_it_learns_the_three_shapes(tmp_path: Path) -> None:
    train_model("smoke", tmp_path, overrides={"loop.workers": 0})
    metrics = read_card(tmp_path / "package" / CARD).metrics
    assert metrics["mean_dice"] > 0.6
    assert metrics["left_right_swaps"] == 0
    seen = [entry["validation"] for entry in read_journal(tmp_path) if "validation" in entry]
    assert [set(figures) for figures in seen] == [{"dice", *LABELS}] * 5
    assert seen[-1]["dice"] > seen[0]["dice"]


def test_a_loss_that_runs_away_stops_and_names_the_batch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(Loss|Gradient) is not finite at step \d+; cases t\d\d(, t\d\d)?\."):
        train_model("smoke", tmp_path, overrides={"loop.learning_rate": 1e30, "loop.workers": 0, "loop.max_steps": 9})


def start_pair(out: Path, steps: int) -> list[subprocess.Popen[str]]:
    """Two ranks, as torchrun starts them."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [start(out, steps, RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")]


@pytest.mark.slow
def test_a_rank_that_is_killed_is_reported_within_a_minute(tmp_path: Path) -> None:
    first, second = start_pair(tmp_path, 100_000)
    try:
        wait_until((tmp_path / LAST).is_file)
        second.kill()
        began = time.monotonic()
        _, errors = first.communicate(timeout=120)
        assert time.monotonic() - began < 60
        assert first.returncode == WorkerError.exit_code
        assert "Error: Rank 1 is gone or hangs" in errors
        assert "Go on with --resume." in errors
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_two_ranks_of_the_command_train_one_model(tmp_path: Path) -> None:
    pair = start_pair(tmp_path, 10)
    said, errors = zip(*[process.communicate(timeout=280) for process in pair], strict=True)
    assert [process.returncode for process in pair] == [0, 0], errors
    assert "Model package: " in said[0]
    assert said[1] == ""
    load_model(tmp_path / "package")


def test_phantoms_are_computed_once_and_the_same(tmp_path: Path) -> None:
    index = write_phantoms(tmp_path / "a", PhantomConfig(train=2, validation=1))
    write_phantoms(tmp_path / "b", PhantomConfig(train=2, validation=1))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.nii.gz"))
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    before = index.stat().st_mtime_ns
    write_phantoms(tmp_path / "a", PhantomConfig(train=2, validation=1))
    assert index.stat().st_mtime_ns == before
    assert len(read_index(write_phantoms(tmp_path / "b", PhantomConfig(train=3, validation=1))).of("train")) == 3
    dataset = read_index(index)
    cases = list(load_cases(dataset.cases, dataset.labels, (6.0, 6.0, 6.0)))
    assert all(case.known.all() for case in cases)
    assert not np.array_equal(cases[0].hu, cases[1].hu)
    assert json.loads(index.read_text())["labels"] == LABELS


def test_the_ball_is_on_the_left_and_the_box_on_the_right() -> None:
    _, labels = draw_phantom(np.random.default_rng(3))
    middle = (labels.shape[0] - 1) / 2
    assert np.argwhere(labels == LABELS["ball_left"])[:, 0].mean() < middle  # RAS: low i is the left
    assert np.argwhere(labels == LABELS["box_right"])[:, 0].mean() > middle


@pytest.mark.slow
def test_torchrun_restarts_a_run_whose_rank_was_killed(tmp_path: Path) -> None:
    """Elastic: torchrun starts all ranks anew, and with --resume they go on from the checkpoint."""
    config = tmp_path / "c.yaml"
    values = yaml.safe_load((PRESETS / "smoke.yaml").read_text())
    values["loop"] |= {"checkpoint_minutes": 1e-3, "max_steps": 40, "workers": 0}
    config.write_text(yaml.safe_dump(values))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), "-m", "medseg", "train", str(config)]
    process = subprocess.Popen(
        [*torchrun, "-o", str(tmp_path / "run"), "--resume", "--stage", "full"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until((tmp_path / "run" / LAST).is_file, 240)
        ranks = psutil.Process(process.pid).children()
        assert len(ranks) == 2
        ranks[1].kill()
        said, _ = process.communicate(timeout=280)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "resumed at step" in said
    load_model(tmp_path / "run" / "package")
