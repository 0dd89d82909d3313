"""nnU-Net v2's own trainer with a schedule that ends with a given time; runs in nnU-Net's environment.

`against_nnunet_training.py` calls it; it imports nothing of medseg. Only training iterations count, as with ours: no
validation, checkpoint or start-up. A run that was killed goes on from its last checkpoint with the time that was
counted until then. The learning rate follows nnU-Net's polynomial over the share of the time that is spent, or of
`--iterations` where those come first (for trying the script out).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import time
from pathlib import Path

import nnunetv2
import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

EXPONENT = 0.9


class Timed:
    """Drives a trainer iteration by iteration.

    Args:
        trainer: initialised.
        minutes: of training iterations, all parts of the run together.
        iterations: at most so many.
        state: JSON file with the seconds and iterations so far and the curve.
        save_minutes: between two checkpoints.
        bf16: autocast to it, as nnU-Net itself does to fp16 on a GPU; on a CPU it trains in fp32.
    """

    def __init__(
        self,
        trainer: nnUNetTrainer,
        minutes: float,
        iterations: int,
        state: Path,
        save_minutes: float,
        bf16: bool,
    ) -> None:
        self.trainer, self.limit_s, self.iterations, self.bf16 = trainer, 60 * minutes, iterations, bf16
        self.state, self.save_s = state, 60 * save_minutes
        self.checkpoint = Path(trainer.output_folder) / "checkpoint_final.pth"
        self.seconds, self.done, self.curve = 0.0, 0, []
        if state.is_file() and self.checkpoint.is_file():
            found = json.loads(state.read_text())
            self.seconds, self.done, self.curve = found["seconds"], found["iterations"], found["curve"]
            trainer.load_checkpoint(str(self.checkpoint))

    @property
    def share(self) -> float:
        """Of the run that lies behind."""
        return min(1.0, max(self.seconds / self.limit_s, self.done / self.iterations))

    def run(self) -> None:
        """Train to the end."""
        trainer = self.trainer
        trainer.on_train_start()
        trainer.network.train()
        saved = self.seconds
        while self.share < 1:
            rate = trainer.initial_lr * (1 - self.share) ** EXPONENT
            for group in trainer.optimizer.param_groups:
                group["lr"] = rate
            began = time.perf_counter()
            batch = next(trainer.dataloader_train)
            with torch.autocast(trainer.device.type, torch.bfloat16, enabled=self.bf16):
                loss = float(trainer.train_step(batch)["loss"])
            self.seconds += time.perf_counter() - began
            self.done += 1
            self.curve.append([round(self.seconds, 2), round(loss, 4)])
            if self.seconds - saved > self.save_s:
                self.save()
                saved = self.seconds
        self.save()

    def save(self) -> None:
        """Checkpoint first, then the time that it stands for."""
        part = self.checkpoint.with_name("part.pth")
        self.trainer.save_checkpoint(str(part))
        os.replace(part, self.checkpoint)
        part = self.state.with_name("part.json")
        part.write_text(json.dumps({"seconds": self.seconds, "iterations": self.done, "curve": self.curve}))
        os.replace(part, self.state)


def trainer_class(names: str) -> type[nnUNetTrainer]:
    """One of nnU-Net's trainers, or several in one ('A+B': what A does not change, B does), under the first's name."""
    kinds = tuple(_find(name) for name in names.split("+"))
    return kinds[0] if len(kinds) == 1 else type(kinds[0].__name__, kinds, {})


def _find(name: str) -> type[nnUNetTrainer]:
    """By its name. nnU-Net's own search imports all trainers, and some need libraries that others do without."""
    package = Path(nnunetv2.__path__[0])
    (file,) = [path for path in package.rglob("*.py") if f"class {name}(" in path.read_text()]
    module = ".".join((package.name, *file.relative_to(package).with_suffix("").parts))
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """Train one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preprocessed", type=Path, required=True, help="folder of the dataset in nnUNet_preprocessed")
    parser.add_argument("--plans", default="nnUNetPlans")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--trainer", default="nnUNetTrainer", help="nnU-Net's own; 'A+B' combines two")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--iterations", type=int, default=10**9)
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="half precision, which nnU-Net knows on a GPU only")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    random.seed(given.seed)
    np.random.seed(given.seed)
    torch.manual_seed(given.seed)
    plans = json.loads((given.preprocessed / f"{given.plans}.json").read_text())
    # Its own command line puts this into the plans, too.
    plans["continue_training"] = any(Path(os.environ["nnUNet_results"]).rglob("timed.json"))  # noqa: SIM112
    dataset = json.loads((given.preprocessed / "dataset.json").read_text())
    trainer = trainer_class(given.trainer)(plans, given.configuration, 0, dataset, torch.device(given.device))
    trainer.initialize()
    folder = Path(trainer.output_folder)
    state = folder / "timed.json"
    Timed(trainer, given.minutes, given.iterations, state, given.save_minutes, given.bf16).run()
    print(json.dumps({"folder": str(folder.parent), "state": str(state)}))


if __name__ == "__main__":
    main()
