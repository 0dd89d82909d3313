"""One training step in single and in half precision, in turns: seconds and peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medseg.networks.catalogue import build_network
from medseg.training.footprint import footprint
from medseg.training.losses import deep_supervision_loss

WIDE = {"width": 64, "deep_supervision": 2}  # the specification's network, for a GPU
CLASSES = 8
MB = 2**20


@dataclass(frozen=True)
class StepCost:
    """Median seconds, and MiB at the peak: of the allocator on a GPU, of the tensors on a CPU."""

    seconds: float
    memory_mb: float


def compare_steps(
    options: Mapping[str, Any], patch: tuple[int, int, int], batch: int, device: torch.device, rounds: int
) -> dict[str, StepCost]:
    """'fp32' and 'half' (fp16 on a GPU, bf16 on a CPU) -> cost; the first round warms up.

    Args:
        options: of `Optimized3DUNet`.
        patch: voxels along the axes.
        batch: patches a step.
        device: where.
        rounds: steps of each that count.
    """
    network = build_network("Optimized3DUNet", dict(options) | {"out_channels": CLASSES}).train().to(device)
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters())
    image = torch.randn(batch, 1, *patch, device=device).to(memory_format=torch.channels_last_3d)
    labels = torch.randint(CLASSES, (batch, *patch), device=device)
    costs: dict[str, list[StepCost]] = {"fp32": [], "half": []}
    for _ in range(rounds + 1):
        for name, found in costs.items():
            found.append(_step(network, optimiser, image, labels, half=name == "half"))
    return {name: _median(found[1:], options, image, name) for name, found in costs.items()}


def _step(
    network: nn.Module, optimiser: torch.optim.Optimizer, image: Tensor, labels: Tensor, *, half: bool
) -> StepCost:
    on_gpu = image.is_cuda
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    known = torch.ones(len(image), CLASSES, dtype=torch.bool, device=image.device)
    began = time.perf_counter()
    optimiser.zero_grad(set_to_none=True)
    precision = (
        torch.autocast(image.device.type, torch.float16 if on_gpu else torch.bfloat16) if half else nullcontext()
    )
    with precision:
        loss = deep_supervision_loss(network(image), labels, known)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return StepCost(seconds, torch.cuda.max_memory_allocated() / MB if on_gpu else 0.0)


def _median(found: list[StepCost], options: Mapping[str, Any], image: Tensor, name: str) -> StepCost:
    seconds = statistics.median(cost.seconds for cost in found)
    if image.is_cuda:
        return StepCost(seconds, max(cost.memory_mb for cost in found))
    weighed = footprint("Optimized3DUNet", options, CLASSES, "fp32" if name == "fp32" else "bf16")
    return StepCost(seconds, weighed.bytes(image.shape[2:], len(image)) / MB)
