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
