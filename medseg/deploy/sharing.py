"""ParameterSharing: kernels of a convolution are tied in groups, by likeness.

What is tied: in every Conv3d with kernels of more than one voxel and at least `min_kernels` pairs of channels (the deep
layers, which hold most of a U-Net's weights), the O x I kernels are divided by the norm of their output channel,
clustered by k-means into O x I / group_size groups, and each group gets one common kernel; the channel's norm stays as
its scale. What stays as it was: transposed and 1x1x1 convolutions, small layers, norms and biases.

What is stored: `kernels` (float16), `scale` and `index` (8, 16 or 32 bits a kernel) in place of `weight`. With
3x3x3 kernels and group_size 4 a tied layer takes 33 % of its float16 and 16 % of its float32 size. Nothing is saved in
memory or time: `load_network` writes the kernels out. Ties cost Dice until the network is fine-tuned: let it learn
from the network before (`distil`), or train `sharing.model` as any network; only common kernels and scales move.

Source: weight sharing by k-means, Han et al., Deep Compression (ICLR 2016); whole kernels, Son et al. (ECCV 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.imaging.emit import sha256_file
from medseg.models.tensors import emit_tensors
from medseg.networks.shared_kernels import SharedConv3d

ITERATIONS = 8
ROUNDS = 8
_ROWS = 4096  # of a distance matrix at once


@dataclass(frozen=True)
class TiedLayer:
    """One convolution after tying.

    Attributes:
        name: its place in the network.
        kernels: how many it had.
        shared: how many are left.
        error: root mean square change of its weights, relative to the weights.
    """

    name: str
    kernels: int
    shared: int
    error: float


class ParameterSharing:
    """A network with tied kernels; the one that was given is left as it is.

        shared = ParameterSharing(network, group_size=4)
        logits = shared.model(tiles)               # fine-tune this
        shared.save("weights.safetensors")

    Args:
        model: a network of Conv3d layers.
        group_size: kernels that share one, on average; 2 or more.
        min_kernels: layers with fewer kernels are left alone.
        seed: of the clusters' starts; the same seed gives the same ties.

    Attributes:
        model: the tied network.
        layers: what was tied, and how far the weights moved.

    Raises:
        ConfigError: group_size below 2, or no layer is large enough.
    """

    def __init__(self, model: nn.Module, group_size: int = 4, *, min_kernels: int = 4096, seed: int = 0) -> None:
        if group_size < 2:
            raise ConfigError(f"Groups of {group_size} share nothing.", advice="Use group_size=2 or more.")
        self.model, self.group_size = deepcopy(model), group_size
        layers = []
        for name, conv in list(_large(self.model, min_kernels)):
            tied = tie(conv, group_size, seed)
            layers.append(_described(name, conv, tied))
            _replace(self.model, name, tied)
        if not layers:
            raise ConfigError(f"No convolution has {min_kernels} kernels or more.", advice="Lower min_kernels.")
        self.layers = tuple(layers)

    def state_dict(self) -> dict[str, Tensor]:
        """What is stored: shared kernels in place of weights, kernels in float16, all else exact."""
        return {name: _compact(tensor) for name, tensor in self.model.state_dict().items()}

    def save(self, path: str | Path) -> str:
        """Write the weights as safetensors, which `load_network` reads as those of the plain network; their SHA-256.

        Raises:
            OutputError: the file could not be written.
        """
        emit_tensors(Path(path), self.state_dict())
        return sha256_file(Path(path))


def _large(model: nn.Module, min_kernels: int) -> Iterator[tuple[str, nn.Conv3d]]:
    for name, module in model.named_modules():
        if type(module) is not nn.Conv3d or module.groups != 1 or module.padding_mode != "zeros":
            continue
        kernels = module.out_channels * module.in_channels
        if kernels >= min_kernels and module.weight[0, 0].numel() > 1:
            yield name, module


def tie(conv: nn.Conv3d, group_size: int, seed: int = 0) -> SharedConv3d:
    """One convolution with its kernels tied."""
    weight = conv.weight.detach().float()
    out, into = weight.shape[:2]
    scale = weight.flatten(1).norm(dim=1).clamp_min(1e-12) / into**0.5
    kernels = (weight / scale[:, None, None, None, None]).reshape(out * into, -1)
    centres, index = cluster(kernels, -(-len(kernels) // group_size), seed)
    return SharedConv3d(conv, centres.reshape(-1, *weight.shape[2:]), scale, index.reshape(out, into))


def cluster(rows: Tensor, count: int, seed: int, iterations: int = ITERATIONS) -> tuple[Tensor, Tensor]:
    """k-means: rows [n, d] -> centres [count, d] and the number of each row's centre.

    A centre that loses all its rows takes over the worst served one.
    """
    centres = _starts(rows, count, torch.Generator().manual_seed(seed))
    for _ in range(iterations):
        index, distance = _nearest(rows, centres)
        centres = _means(rows, index, centres)
        empty = (torch.bincount(index, minlength=count) == 0).nonzero()[:, 0]
        worst = (distance + rows.square().sum(dim=1)).topk(len(empty)).indices
        centres[empty] = rows[worst]
    index, _ = _nearest(rows, centres)
    return _means(rows, index, centres), index


def _starts(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows drawn in rounds, each with a chance that grows with the square of its distance to those drawn before.

    Source: k-means||, Bahmani et al. (VLDB 2012).
    """
    squares = rows.square().sum(dim=1)
    drawn = torch.randint(len(rows), (1,), generator=generator)
    distance = torch.full((len(rows),), float("inf"))
    new = drawn
    while len(drawn) < count:
        distance = torch.minimum(distance, (_nearest(rows, rows[new])[1] + squares).clamp_min(1e-12))
        distance[drawn] = 0
        take = min(max(1, count // ROUNDS), count - len(drawn))
        new = torch.multinomial(distance, take, generator=generator)
        drawn = torch.cat([drawn, new])
    return rows[drawn].clone()


def _nearest(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The centre of each row and the square of the distance to it, but for the row's own square."""
    squares, turned = centres.square().sum(dim=1), centres.T.contiguous()
    found = [torch.addmm(squares, part, turned, alpha=-2).min(dim=1) for part in rows.split(_ROWS)]
    return torch.cat([one.indices for one in found]), torch.cat([one.values for one in found])


def _means(rows: Tensor, index: Tensor, centres: Tensor) -> Tensor:
    counts = torch.bincount(index, minlength=len(centres)).clamp_min(1)[:, None]
    sums = torch.zeros_like(centres).index_add_(0, index, rows)
    filled = torch.bincount(index, minlength=len(centres))[:, None] > 0
    return torch.where(filled, sums / counts, centres)


def _described(name: str, conv: nn.Conv3d, tied: SharedConv3d) -> TiedLayer:
    weight = conv.weight.detach()
    error = float((tied.weight.detach() - weight).norm() / weight.norm().clamp_min(1e-12))
    return TiedLayer(name, conv.out_channels * conv.in_channels, len(tied.kernels), error)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def _compact(tensor: Tensor) -> Tensor:
    kernel = tensor.ndim > 1 and tensor.is_floating_point()
    return (tensor.detach().to(torch.float16) if kernel else tensor.detach()).contiguous()
