"""Half precision is tried in a process of its own first: where a CPU's kernels end the process, a run says so instead.

PyTorch picks its half-precision kernels by what the processor claims to have. Seen once on a virtual machine: the
process ended at a bf16 step without a word, and took all that ran in it along.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import cache

import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.training.loop import Precision

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PATIENCE_S = 120


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


@cache
def _fault(precision: str) -> str:
    command = [sys.executable, "-m", __name__, precision]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"it hung for {_PATIENCE_S} s"
    if done.returncode < 0:
        return f"its process was ended by {signal.Signals(-done.returncode).name}"
    said = done.stderr.strip().splitlines()
    return f"exit code {done.returncode}, {said[-1] if said else 'without a word'}" if done.returncode else ""


def take_step(dtype: torch.dtype) -> None:
    """Forward and backward through what the networks are made of."""
    conv, line = nn.Conv3d(1, 16, 3, padding=1), nn.Linear(16, 1)
    with torch.autocast("cpu", dtype):
        out = line(conv(torch.ones(2, 1, 8, 8, 8)).mean((2, 3, 4)))
    out.float().square().mean().backward()
    if conv.weight.grad is None or not conv.weight.grad.isfinite().all():
        raise ArithmeticError("The gradient is not finite.")


if __name__ == "__main__":
    take_step(_TYPES[sys.argv[1]])
