"""A precision that ends the process is found out before a run begins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from medseg.errors import ConfigError
from medseg.training import trial
from medseg.training.trial import require_precision
from tests.training.toys import line_trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    trial._fault.cache_clear()
    yield
    trial._fault.cache_clear()


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the interpreter of the trial: what is written here runs instead."""
    program = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(program))
    return program


def becomes(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -ILL $$", "ended by SIGILL"),
        ("echo 'Traceback'; echo 'RuntimeError: no kernel' >&2; exit 1", "exit code 1, RuntimeError: no kernel"),
        ("exit 3", "exit code 3, without a word"),
    ],
)
def test_a_step_that_does_not_come_back_is_named_with_its_way_out(python: Path, script: str, reason: str) -> None:
    becomes(python, script)
    with pytest.raises(ConfigError, match=f"bf16 does not work on this processor: .*{reason}.*precision: fp32"):
        require_precision("bf16", CPU)


def test_a_step_that_hangs_is_named(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(python, "exec sleep 60")
    monkeypatch.setattr(trial, "_PATIENCE_S", 0.2)
    with pytest.raises(ConfigError, match=r"it hung for 0\.2 s"):
        require_precision("fp16", CPU)


def test_full_precision_and_other_devices_are_not_tried(python: Path) -> None:
    becomes(python, "kill -ILL $$")
    require_precision("fp32", CPU)
    require_precision("fp64", CPU)
    require_precision("bf16", torch.device("cuda"))


def test_a_run_asks_before_its_first_step(python: Path, tmp_path: Path) -> None:
    becomes(python, "kill -SEGV $$")
    trainer = line_trainer(tmp_path / "run", precision="bf16")
    with pytest.raises(ConfigError, match="SIGSEGV"):
        trainer.run()
    assert trainer.step == 0


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "notes"))
    return tmp_path / "notes"


@pytest.mark.parametrize(("bf16", "pays"), [(0.5, True), (0.95, False), (1.4, False)])
def test_bf16_pays_where_its_step_is_clearly_faster(python: Path, notes: Path, bf16: float, *, pays: bool) -> None:
    becomes(python, f"""echo '{{"fp32": 1.0, "bf16": {bf16}}}'""")
    assert trial.bf16_pays() is pays
    becomes(python, "exit 1")
    assert trial.bf16_pays() is pays  # timed once: runs of one machine agree


@pytest.mark.parametrize("script", ["kill -ILL $$", "exit 1", "echo nonsense"])
def test_bf16_that_does_not_work_does_not_pay_and_is_tried_again(python: Path, notes: Path, script: str) -> None:
    becomes(python, script)
    assert not trial.bf16_pays()
    becomes(python, """echo '{"fp32": 1.0, "bf16": 0.5}'""")
    assert trial.bf16_pays()


def test_both_steps_are_timed_in_a_process_of_their_own(notes: Path) -> None:
    seconds = trial._seconds()
    assert seconds is None or all(0.001 < seconds[precision] < 30 for precision in ("fp32", "bf16"))
    if trial.cpu_can("bf16"):
        assert seconds is not None
