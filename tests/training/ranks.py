"""Starts this module as several ranks: `python -m tests.training.ranks FOLDER NAME...` under torchrun's variables."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from medseg.errors import Cancelled, ConfigError, DataError, OutputError
from medseg.labels import LabelTable
from medseg.training import distributed
from medseg.training import trainer as trainers
from medseg.training import watch as watching
from medseg.training.cases import load_cases, read_index
from medseg.training.distributed import (
    Ranks,
    all_rows,
    all_sum,
    all_values,
    from_first,
    joined,
    largest,
    wait_for_all,
)
from medseg.training.patches import PatchSampler
from medseg.training.segmentation import SegmentationTask
from medseg.training.task import Loss
from medseg.training.trainer import Trainer
from tests.training.conftest import config
from tests.training.toys import LineTask, Points, line_trainer


def start(folder: Path, *names: str, world: int = 2) -> list[subprocess.Popen[str]]:
    """`world` processes that run the functions `names` of this module, one after another, as ranks of one run."""
    port = free_port()
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.ranks", str(folder), *names],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def free_port() -> int:
    """A port below those that the system hands out, so that no connection of another test takes it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def outcome(name: str, folder: Path, world: int = 2) -> list[Any]:
    """What the function returned on each rank (JSON)."""
    for process in start(folder, name, world=world):
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    return left_by(name, folder, world)


def left_by(name: str, folder: Path, world: int = 2) -> list[Any]:
    """The same, of processes that have ended."""
    return [json.loads((folder / name / f"rank{rank}.json").read_text()) for rank in range(world)]


class Batched(LineTask):
    """Dropout off, batch norm over all ranks, a mean over the points of all ranks; batches of `size` points each."""

    def __init__(self, size: int) -> None:
        super().__init__(size, dropout=0)

    def build(self) -> nn.Module:
        return _Net()

    def batch(self, number: int) -> Points:
        rows = [LineTask(1).batch(number * self.size + n) for n in range(self.size)]
        return Points(torch.cat([row.x for row in rows]), torch.cat([row.y for row in rows]), ())

    def loss(self, network: nn.Module, batch: Points) -> Loss:
        error = (network(batch.x.double()) - batch.y.double()).square()
        weight = (batch.x > 0.3).double()  # as partial labels: ranks bring different counts
        return Loss(all_sum((error * weight).sum()) / all_sum(weight.sum() + 1e-3 * len(weight)))

    def validate(self, network: nn.Module, step: int) -> dict[str, float]:
        return {}


class Doubled(LineTask):
    """In float64, where rounding hides no difference."""

    def loss(self, network: nn.Module, batch: Points) -> Loss:
        return super().loss(network, Points(batch.x.double(), batch.y.double(), batch.ids))

    def validate(self, network: nn.Module, step: int) -> dict[str, float]:
        return {}


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 6), nn.Linear(6, 1)
        self.norm = nn.BatchNorm3d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.norm(self.first(x)[:, :, None, None, None])[:, :, 0, 0, 0]
        out: torch.Tensor = self.last(hidden.tanh())
        return out


EXACT = {"precision": "fp64", "optimiser": "sgd", "max_steps": 20, "learning_rate": 0.05, "momentum": 0.9}


def exact(ranks: Ranks, folder: Path) -> Any:
    trainer = line_trainer(folder, Batched(8 // ranks.world), ranks=ranks, **EXACT)
    trainer.run()
    return {name: tensor.flatten().tolist() for name, tensor in trainer.network.state_dict().items()}


def exact_patches(ranks: Ranks, folder: Path) -> Any:
    """The segmentation task itself: patches whose cases know different organs, four a step however many ranks."""
    index = folder / "data" / "index.json"
    settings = config(index, batch_size=4 // ranks.world, **EXACT)
    dataset = read_index(index)
    cases = list(load_cases(dataset.of("train"), dataset.labels, settings.spacing_mm))
    task = SegmentationTask(PatchSampler(cases, settings, LabelTable.from_names(dataset.labels)), settings)
    trainer = Trainer(task, settings.loop, folder, ranks=ranks)
    trainer.run()
    return {name: tensor.flatten().tolist() for name, tensor in trainer.network.state_dict().items()}


def begun(ranks: Ranks, folder: Path) -> Any:
    """A part of a run; another number of ranks goes on with it."""
    answers = iter([False] * 6 + [True])
    trainer = line_trainer(folder / "run", Doubled(), ranks=ranks, stop=lambda: next(answers), **EXACT)
    with suppress(Cancelled):
        trainer.run()
    return trainer.step


def late(ranks: Ranks, folder: Path) -> Any:
    """The first rank prepares for longer than a collective of the training may take."""
    if ranks.first:
        time.sleep(distributed.TIMEOUT_S + 3)
    wait_for_all()
    return all_values(ranks.rank)


def late_start(ranks: Ranks, folder: Path) -> Any:
    """The second rank comes to the training when the first one's patience has long been over."""
    with (
        patch.object(watching, "BEAT_S", 0.1),
        patch.object(trainers, "Watch", partial(watching.Watch, patience_s=1)),
    ):
        trainer = line_trainer(folder, ranks=ranks)
        time.sleep(0 if ranks.first else 4)
        trainer.run()
    return trainer.step


def sums(ranks: Ranks, folder: Path) -> Any:
    x = torch.tensor([[float(ranks.rank + 1)]], requires_grad=True)
    rows = all_rows(x)
    total = all_sum(x)
    # Each rank's loss holds all ranks' values; averaged gradients are those of one such loss.
    (rows.square().sum() + total.squeeze()).backward()
    assert x.grad is not None
    return {
        "rows": rows.flatten().tolist(),
        "sum": total.item(),
        "gradient": x.grad.item() / ranks.world,
        "largest": largest([float(ranks.rank), -float(ranks.rank)], ranks.device),
        "values": all_values(ranks.rank),
        "first": from_first(ranks.rank),
    }


def half(ranks: Ranks, folder: Path) -> Any:
    trainer = line_trainer(folder, ranks=ranks, precision="bf16")
    trainer.run()
    types = {str(tensor.dtype) for tensor in trainer.network.state_dict().values()}
    return {"types": sorted(types), "report": trainer.amp.report()}


def endless(ranks: Ranks, folder: Path) -> Any:
    (folder / f"pid{ranks.rank}").write_text(str(os.getpid()))
    line_trainer(folder, ranks=ranks, max_steps=10**7, log_steps=10**6, checkpoint_minutes=1e-3).run()


def refused_once(ranks: Ranks, folder: Path) -> Any:
    """The first checkpoint cannot be written, and each rank wants one at another moment."""
    answers = iter([OutputError("No space left on device.")])
    trainer = line_trainer(folder, ranks=ranks, max_steps=60, checkpoint_minutes=1e-4 * (1 + ranks.rank))
    write = trainer._write
    trainer._write = lambda: next(answers, None) or write()  # type: ignore[method-assign]
    trainer.run()
    return trainer.step


def apart(ranks: Ranks, folder: Path) -> Any:
    """A run folder that is not the same for all ranks: the first one's alone holds a checkpoint."""
    own = folder / f"of{ranks.rank}"
    line_trainer(own, ranks=ranks).save()
    try:
        line_trainer(own, ranks=ranks).resume()
    except ConfigError as error:
        return str(error)
    return "resumed"


def unprepared(ranks: Ranks, folder: Path) -> Any:
    """One rank's share of the data is broken."""
    if not ranks.first:
        raise DataError("Case c7: the mask is broken.")
    wait_for_all()


def spoilt(ranks: Ranks, folder: Path) -> Any:
    def spoil(number: int, y: torch.Tensor) -> torch.Tensor:
        return y * float("nan") if number == 7 else y  # step 3 on rank 1

    line_trainer(folder, LineTask(spoil=spoil), ranks=ranks).run()


def wait_until(happened: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, how)


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    if "late" in names:
        distributed.TIMEOUT_S = 20
    with joined("cpu") as ranks:
        for name in names:
            own = folder / name
            own.mkdir(parents=True, exist_ok=True)
            result = globals()[name](ranks, own)
            (own / f"rank{ranks.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
