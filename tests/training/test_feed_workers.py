"""How many processes prepare batches, where the config leaves it to the device."""

from __future__ import annotations

import os

import pytest
import torch
from pydantic import ValidationError

from medseg.training.feed import MOST_WORKERS, workers_for
from medseg.training.loop import LoopConfig

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("cores", "ranks", "device", "workers"),
    [(2, 1, CPU, 1), (64, 1, CPU, 1), (16, 1, GPU, MOST_WORKERS), (16, 4, GPU, 3), (2, 4, GPU, 1), (1, 1, GPU, 1)],
)
def test_a_gpu_gets_the_cores_of_its_share(
    cores: int, ranks: int, device: torch.device, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert workers_for("auto", device) == workers


def test_who_names_a_number_gets_it() -> None:
    assert [workers_for(number, GPU) for number in (0, 1, 30)] == [0, 1, 30]
    assert LoopConfig(workers=0).workers == 0
    assert LoopConfig().workers == "auto"
    for wrong in (-1, "many"):
        with pytest.raises(ValidationError, match="workers"):
            LoopConfig.model_validate({"workers": wrong})
