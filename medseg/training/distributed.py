"""Several ranks that train as one: started by torchrun, over NCCL or gloo; sums that keep their gradient.

Without torchrun everything here is the identity, so that no caller asks whether there are others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medseg.errors import ConfigError, WorkerError
from medseg.training.launchers import adopt_open_mpi

T = TypeVar("T")

# A collective that waits longer gives up. Dead ranks are noticed much sooner, by `Watch`.
TIMEOUT_S = 600.0
# The first rank may convert hundreds of studies while the others wait.
PREPARING = timedelta(days=1)
_patient: list[dist.ProcessGroup] = []


@dataclass(frozen=True)
class Ranks:
    """Who this process is among those that train together."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0


def choose_device(name: str, local_rank: int = 0, local_ranks: int = 1) -> torch.device:
    """'auto' takes this rank's GPU where there are any, 'cuda' as well; anything else is taken as it stands.

    Args:
        name: auto, cpu, cuda, cuda:1 ...
        local_rank: which of this computer's ranks this one is, from 0 on.
        local_ranks: how many there are.

    Raises:
        ConfigError: no such device here, or one for several ranks.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return _own_gpu(name, local_rank, max(local_ranks, local_rank + 1))
    try:
        device = torch.device("cpu" if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device: {name!r} is not there.", advice="Take cpu, cuda or auto.") from error
    if device.type != "cpu" and device.index is not None and local_ranks > 1:
        raise ConfigError(f"device: {name!r} is one device for {local_ranks} ranks.", advice="Take cuda or auto.")
    return device


def _own_gpu(name: str, local_rank: int, local_ranks: int) -> torch.device:
    """Refused by all of a computer's ranks alike: none waits for one that has no GPU."""
    if local_ranks > torch.cuda.device_count():
        raise ConfigError(
            f"device: {name!r}: {local_ranks} ranks want a GPU each; this computer has {torch.cuda.device_count()}.",
            advice="Start no more processes than there are GPUs (--nproc-per-node), or take loop.device: cpu.",
        )
    return torch.device("cuda", local_rank)


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Take one's place among the ranks that torchrun or mpirun started; alone without. Leaves them at the end.

    Raises:
        ConfigError: no such device here, too few for the ranks of this computer, or ranks that do not know where to
            meet.
        WorkerError: another rank ended, and `Watch` was not there to tell why: while data were prepared.
    """
    adopt_open_mpi(os.environ)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    place = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")), ranks_here())
    if world == 1:
        yield Ranks(device=place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "nccl" if place.type == "cuda" else "gloo"
    patience = timedelta(seconds=TIMEOUT_S)
    met, rank, world = next(dist.rendezvous("env://", timeout=patience))  # type: ignore[attr-defined]
    # torchrun at a fixed address keeps its store when it starts the ranks anew: with the addresses of those that ended.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"start-{attempt}", met)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=patience)
    _patient.append(dist.new_group(backend="gloo", timeout=PREPARING))
    try:
        yield Ranks(dist.get_rank(), world, place)
        dist.barrier()  # who keeps the others together leaves last
    except Exception as error:
        if not of_collective(error):
            raise
        raise WorkerError(
            "Another rank ended or hangs, and this one cannot go on alone; the message of the former says why.",
            advice="Mend that, and go on with --resume.",
        ) from error
    finally:
        _patient.clear()
        dist.destroy_process_group()


def ranks_here() -> int:
    """How many ranks this computer has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def of_collective(error: Exception) -> bool:
    """Whether it says only that ranks lost each other, and not why."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def alone() -> bool:
    """Whether no other rank takes part."""
    return not dist.is_initialized() or dist.get_world_size() == 1


class _AllSum(torch.autograd.Function):
    """Sum over ranks; a gradient is the sum of all ranks' gradients, since each rank's value entered all sums."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        out = tensor.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _AllRows(torch.autograd.Function):
    """Rows of all ranks, in the order of ranks; every rank must bring as many."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def all_sum(tensor: Tensor) -> Tensor:
    """Sum over ranks, differentiable.

    A loss that is computed from such sums is the loss of the whole batch on every rank; its gradients, averaged over
    ranks as DistributedDataParallel does, are those of one rank that saw everything.
    """
    return tensor if alone() else _AllSum.apply(tensor)


def all_rows(tensor: Tensor) -> Tensor:
    """Rows [n, ...] of all ranks -> [ranks * n, ...], differentiable in the same way as `all_sum`."""
    return tensor if alone() else _AllRows.apply(tensor)


def everyones_share(items: Sequence[T]) -> Sequence[T]:
    """This rank's part of a list that all ranks hold: every `world`-th, nothing twice."""
    return items if alone() else items[dist.get_rank() :: dist.get_world_size()]


def all_values(value: Any) -> list[Any]:
    """One small Python value of each rank, in their order."""
    if alone():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def largest(values: list[float], device: torch.device) -> list[float]:
    """The largest of each value over all ranks."""
    if alone():
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [float(value) for value in tensor]


def from_first(value: Any) -> Any:
    """The first rank's value, on all ranks."""
    if alone():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def wait_for_all() -> None:
    """Go on when every rank has come here, however long the first one prepares data; one that died ends the wait."""
    if not alone():
        dist.barrier(group=_patient[-1])


class SharedBatchNorm3d(nn.BatchNorm3d):
    """Batch norm over the patches of all ranks, on any device (torch's own wants a GPU)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the statistics of all ranks while training."""
        if not self.training or alone():
            return super().forward(x)
        axes = (0, 2, 3, 4)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = wide.new_full((1,), x.numel() / x.shape[1])
        sums = all_sum(torch.cat([wide.sum(axes), (wide * wide).sum(axes), count]))
        channels, total = x.shape[1], sums[-1].detach()
        mean = sums[:channels] / total
        variance = (sums[channels:-1] / total - mean * mean).clamp(min=0)
        self._remember(mean.detach(), variance.detach() * total / (total - 1))
        factor = torch.rsqrt(variance + self.eps) * self.weight
        shift = self.bias - mean * factor
        shape = (1, -1, 1, 1, 1)
        return (wide * factor.view(shape) + shift.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def share_batch_norm(network: nn.Module) -> nn.Module:
    """Let every 3-D batch norm of the network see all ranks; 1-D and 2-D ones become torch's own on a GPU."""
    if alone():
        return network
    for module in network.modules():
        if type(module) is nn.BatchNorm3d and module.affine:
            module.__class__ = SharedBatchNorm3d
    on_gpu = next(network.parameters()).is_cuda
    return nn.SyncBatchNorm.convert_sync_batchnorm(network) if on_gpu and _flat_norms(network) else network


def _flat_norms(network: nn.Module) -> bool:
    return any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in network.modules())
