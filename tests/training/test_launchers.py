"""Ranks that Open MPI starts train together, or are told why they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.errors import ConfigError
from medseg.training.launchers import OPEN_MPI, adopt_open_mpi

TOLD = {
    OPEN_MPI["WORLD_SIZE"]: "4",
    OPEN_MPI["RANK"]: "3",
    OPEN_MPI["LOCAL_RANK"]: "1",
    OPEN_MPI["LOCAL_WORLD_SIZE"]: "2",
}
MEET = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_the_place_that_mpirun_gave_is_taken() -> None:
    environment = TOLD | MEET
    adopt_open_mpi(environment)
    assert [environment[name] for name in OPEN_MPI] == ["4", "3", "1", "2"]


def test_torchrun_has_the_say_and_one_process_is_alone() -> None:
    for environment in (TOLD | {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, {OPEN_MPI["WORLD_SIZE"]: "1"}, {}):
        before = dict(environment)
        adopt_open_mpi(environment)
        assert environment == before


def test_ranks_without_a_meeting_place_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 processes, and MASTER_ADDR and MASTER_PORT do not say where they meet"):
        adopt_open_mpi(dict(TOLD))


@pytest.mark.slow
def test_the_command_does_not_train_alone_beside_others(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "medseg", "train", "smoke", "-o", str(tmp_path / "run")]
    environment = {name: text for name, text in os.environ.items() if name not in MEET} | TOLD
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "mpirun started 4 processes" in done.stderr
    assert not (tmp_path / "run" / "last.safetensors").exists()
