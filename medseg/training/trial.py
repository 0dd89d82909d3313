"""Half precision is tried in a process of its own first: where a CPU's kernels end the process, a run says so instead.

PyTorch picks its half-precision kernels by what the processor claims to have, and an instruction that a virtual machine
lacks ends the process and all that runs in it. Seen on one machine: the processor claims to compute in bf16 (AVX-512
BF16), and a step takes a third longer than in fp32. So it is tried and timed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import cache
from typing import Any

import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.inference.backends.machine import machine_facts
from medseg.inference.backends.measure import CLEARLY_FASTER
from medseg.models.notes import recall, remember
from medseg.training.loop import Precision

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PATIENCE_S = 120
_NOTES = "training-precision"
_TIMED = "timed"


def require_precision(precision: Precision, device: torch.device) -> None:
    """Take one small step in `precision`, at arm's length; a second or two, once per process.

    Raises:
        ConfigError: the step did not come back.
    """
    if device.type == "cpu" and precision in _TYPES and (fault := _fault(precision)):
        raise ConfigError(
            f"A training step in {precision} does not work on this processor: {fault}.",
            advice="Train with `precision: fp32` in the settings' section `loop`.",
        )


def cpu_can(precision: Precision) -> bool:
    """Whether this processor takes a step in `precision`."""
    return precision not in _TYPES or not _fault(precision)


def bf16_pays() -> bool:
    """Whether a step in bf16 works and is clearly faster than one in fp32 here; some seconds, once per machine."""
    facts = machine_facts()
    seconds = recall(_NOTES, facts) or _seconds()
    if seconds:
        remember(_NOTES, facts, seconds)
    return seconds is not None and float(seconds["fp32"]) > CLEARLY_FASTER * float(seconds["bf16"])


def _seconds() -> dict[str, Any] | None:
    """Of a step in both; None where bf16 does not work."""
    try:
        done = _at_arms_length(_TIMED)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        return None


@cache
def _fault(precision: str) -> str:
    try:
        done = _at_arms_length(precision)
    except subprocess.TimeoutExpired:
        return f"it hung for {_PATIENCE_S} s"
    if done.returncode < 0:
        return f"its process was ended by {signal.Signals(-done.returncode).name}"
    said = done.stderr.strip().splitlines()
    return f"exit code {done.returncode}, {said[-1] if said else 'without a word'}" if done.returncode else ""


def _at_arms_length(what: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", __name__, what]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL, check=False
    )


def take_step(network: nn.Module, edge: int, half: torch.dtype | None) -> None:
    """Forward and backward of two cubes of `edge` voxels."""
    image = torch.ones(2, 1, edge, edge, edge).to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", half, enabled=half is not None):
        out = network(image)
    out.float().square().mean().backward()
    if not all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters()):
        raise ArithmeticError("The gradient is not finite.")


def small_network() -> nn.Module:
    """What the networks are made of."""
    blocks = [(1, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
    layers = [
        nn.Sequential(nn.Conv3d(a, b, 3, stride=stride, padding=1), nn.BatchNorm3d(b), nn.ReLU())
        for a, b, stride in blocks
    ]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(64, 1))
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def time_steps(edge: int = 32, rounds: int = 5) -> dict[str, float]:
    """Seconds of a step in fp32 and in bf16: the shortest of some rounds, taken in turns.

    One thread: two that wait for each other would say more of the machine's other work than of the precision.
    """
    torch.set_num_threads(1)
    network = small_network()
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(rounds + 1):
        for name, times in seconds.items():
            began = time.perf_counter()
            take_step(network, edge, _TYPES.get(name))
            times.append(time.perf_counter() - began)
    return {name: round(min(times[1:]), 5) for name, times in seconds.items()}


if __name__ == "__main__":
    if sys.argv[1] == _TIMED:
        print(json.dumps(time_steps()))
    else:
        take_step(small_network(), 8, _TYPES[sys.argv[1]])
