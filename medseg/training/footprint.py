"""What a training step takes of memory, known before it runs: a small step is weighed, tensor by tensor, and scaled.

Activations, losses and their gradients grow with the voxels of a batch, weights and what the optimiser keeps do not.
So two small steps tell what any patch and batch will take, without the memory that they need.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medseg.networks.catalogue import build_network
from medseg.training.loop import Precision
from medseg.training.losses import deep_supervision_loss
from medseg.training.trial import cpu_can

COPIES = 5  # of the weights in fp32: themselves, their gradients, the optimiser's two and the average
SMALL = 32  # edge of the patch that is weighed, or what the network's levels need


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training step: what every step takes, and what comes on top for each voxel of the batch."""

    fixed: float
    voxel: float

    def bytes(self, patch: Sequence[int], batch: int) -> float:
        """Of a step with `batch` patches of `patch` voxels."""
        return self.fixed + self.voxel * batch * math.prod(patch)


def footprint(network: str, options: Mapping[str, Any], classes: int, precision: Precision = "bf16") -> Footprint:
    """Weigh steps of one and of two small patches, forward and backward, on the CPU.

    Args:
        network: its name in the catalogue.
        options: of its builder.
        classes: background included.
        precision: of the training; half precisions weigh alike, and as much as fp32 where this processor has none.

    Raises:
        ConfigError: no such network or option.
    """
    half = precision in ("bf16", "fp16") and cpu_can("bf16")
    built = build_network(network, dict(options) | {"out_channels": classes}).train()
    edge = max(SMALL, 2 * getattr(built, "stride", 1))
    one, two = (weigh(built, classes, edge, batch, half=half) for batch in (1, 2))
    weights = sum(parameter.nbytes for parameter in built.parameters())
    voxel = (two - one) / edge**3
    return Footprint(COPIES * weights + max(0.0, one - voxel * edge**3 - weights), voxel)


def weigh(network: torch.nn.Module, classes: int, edge: int, batch: int, *, half: bool) -> float:
    """Bytes that a step adds to what was there before it, at its peak: `batch` cubes of `edge` voxels."""
    image = torch.randn(batch, 1, edge, edge, edge).to(memory_format=torch.channels_last_3d)
    labels = torch.randint(classes, (batch, edge, edge, edge))
    known = torch.ones(batch, classes, dtype=torch.bool)
    network.zero_grad(set_to_none=True)
    with _Scales() as scales:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = deep_supervision_loss(network(image), labels, known)
        loss.backward()
    return float(scales.peak + image.nbytes + labels.nbytes)


class _Scales(TorchDispatchMode):
    """Counts the bytes of all tensors that come into being, until they go; `peak` is the most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._put(tensor.untyped_storage())
        return out

    def _put(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
