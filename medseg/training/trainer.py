"""The training loop: plain, resumable, and the same for every network of the catalogue.

Knows steps, schedules and checkpoints; knows no files of scans and no organs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, DataError
from medseg.imaging.emit import emit_text
from medseg.networks.catalogue import build_network
from medseg.training.checkpoint import load_checkpoint, save_checkpoint
from medseg.training.config import TrainConfig
from medseg.training.losses import deep_supervision_loss
from medseg.training.patches import Batch, PatchSampler, batches

CHECKPOINT = "checkpoint.safetensors"
# Settings that a resumed run may change: words, places, and how long it goes on.
FREE = {"name", "version", "index", "card", "max_steps", "checkpoint_minutes"}


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter, 2017)."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Trainer:
    """Trains one network on patches, averaging its weights exponentially.

    Args:
        sampler: draws batches by step number.
        config: the run's settings.
        folder: holds `checkpoint.safetensors` and `log.jsonl`.
        report: called with one line of text every few steps.

    Raises:
        ConfigError: the network does not exist, or the patches do not divide into its levels.
    """

    def __init__(
        self, sampler: PatchSampler, config: TrainConfig, folder: Path, report: Callable[[str], None] = print
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.sampler, self.folder, self.report = config, sampler, folder, report
        network = build_network(config.network.name, config.network.options | {"out_channels": sampler.num_classes})
        _check_patch(config, getattr(network, "stride", 1))
        self.network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = deepcopy(self.network).eval()
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0
        self.log: list[dict[str, Any]] = []

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def resume(self) -> None:
        """Go on from the folder's checkpoint, if it has one.

        Raises:
            DataError: it is damaged or belongs to another network.
            ConfigError: it was made with settings that cannot change within a run.
        """
        if self.checkpoint.is_file():
            state = load_checkpoint(self.checkpoint, self.network, self.average, self.optimiser)
            self._compare(state["config"])
            self.step, self.log = state["step"], state["log"]
            self.report(f"resumed at step {self.step}")

    def _compare(self, before: dict[str, Any]) -> None:
        settings = self.config.model_dump(mode="json")
        changed = [key for key in settings if key in before and settings[key] != before[key]]
        if fixed := [key for key in changed if key not in FREE]:
            raise ConfigError(
                f"{self.checkpoint} was made with other settings: {', '.join(fixed)}.",
                advice="Put them back, or choose another run folder.",
            )
        if "max_steps" in changed:
            self.report(f"the run now ends at step {self.config.max_steps}, its learning rate with it")

    def run(self) -> nn.Module:
        """Train to `max_steps`; returns the averaged network in evaluation mode."""
        saved = began = time.monotonic()
        first = self.step
        losses: list[float] = []
        for step, batch in batches(self.sampler, self.step, self.config.max_steps):
            losses.append(self.train_step(step, batch))
            self.step = step + 1
            if self.step % 25 == 0:
                pace = (time.monotonic() - began) / (self.step - first)
                self._note(losses, pace)
                losses = []
            if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
        self.save()
        return self.average

    def train_step(self, step: int, batch: Batch) -> float:
        """One optimiser step; returns the loss.

        Raises:
            DataError: the loss or its gradient is not finite; names the cases of the batch.
        """
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.config)
        image = batch.image.to(memory_format=torch.channels_last_3d)
        with self._autocast():
            outputs = self.network(image)
        loss: Tensor = deep_supervision_loss(outputs, batch.labels, batch.known, self.sampler.voxel_weights)
        _check_finite("Loss", loss, step, batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        # Stopped before the weights and the next checkpoint are spoiled.
        _check_finite("Gradient", norm, step, batch)
        self.optimiser.step()
        self._update_average(step)
        return float(loss.detach())

    def _autocast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16) if self.config.precision == "bf16" else nullcontext()

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        # A short memory at first, so that the random start is forgotten.
        decay = min(self.config.ema_decay, (1 + step) / (10 + step))
        theirs = self.network.state_dict()
        for name, ours in self.average.state_dict().items():
            if ours.is_floating_point():
                ours.lerp_(theirs[name].to(ours.dtype), 1 - decay)
            else:
                ours.copy_(theirs[name])

    def _note(self, losses: list[float], pace: float) -> None:
        left = (self.config.max_steps - self.step) * pace / 60
        entry = {"step": self.step, "loss": sum(losses) / len(losses), "seconds_per_step": pace}
        self.log.append(entry)
        self.report(f"step {self.step}/{self.config.max_steps}  loss {entry['loss']:.3f}  {left:.0f} min left")

    def save(self) -> None:
        """Write the checkpoint and the log."""
        state = {"step": self.step, "log": self.log, "config": self.config.model_dump(mode="json")}
        save_checkpoint(self.checkpoint, self.network, self.average, self.optimiser, state)
        emit_text(self.folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in self.log))


def _check_patch(config: TrainConfig, stride: int) -> None:
    if any(size % stride for size in config.patch_size):
        sizes = " x ".join(str(size) for size in config.patch_size)
        raise ConfigError(f"patch_size: {sizes} does not divide by {stride}, as the levels of the network need.")


def _check_finite(what: str, value: Tensor, step: int, batch: Batch) -> None:
    if not torch.isfinite(value):
        raise DataError(f"{what} is not finite at step {step}; cases {', '.join(batch.ids)}.")
