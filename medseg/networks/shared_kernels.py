"""Convolutions whose kernels are shared: a few kernels, and for every pair of channels the number of one.

A 3-D convolution of I into O channels has O x I kernels of k x k x k weights. Here they are

    weight[o, i] = scale[o] * kernels[index[o, i]]

with about O x I / group_size kernels. `state_dict` holds `kernels`, `scale` and `index` in place of `weight`; that is
what is stored. Weight sharing by clustering: Han et al., Deep Compression (ICLR 2016), there for single weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNELS, SCALE, INDEX = "kernels", "scale", "index"


class SharedConv3d(nn.Module):
    """A Conv3d with shared kernels. Training moves the kernels and scales; who shares what stays.

    Args:
        conv: supplies stride, padding, dilation and bias; not grouped.
        kernels: float [n, k, k, k].
        scale: float [O].
        index: integers [O, I] below n.

    Shapes:
        forward: as Conv3d.
    """

    def __init__(self, conv: nn.Conv3d, kernels: Tensor, scale: Tensor, index: Tensor) -> None:
        super().__init__()
        self.kernels, self.scale = nn.Parameter(kernels), nn.Parameter(scale)
        self.register_buffer(INDEX, index.to(_smallest(len(kernels))))
        self.bias = conv.bias
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation

    @property
    def weight(self) -> Tensor:
        """Dense [O, I, k, k, k]."""
        return dense(self.kernels, self.scale, self.index)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv3d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)  # type: ignore[arg-type]


def dense(kernels: Tensor, scale: Tensor, index: Tensor) -> Tensor:
    """Shared kernels written out: [O, I, k, k, k]."""
    return kernels[index.long()] * scale[:, None, None, None, None]


def shared_layers(model: nn.Module) -> dict[str, SharedConv3d]:
    """The convolutions of a network that share kernels, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SharedConv3d)}


def written_out(model: nn.Module) -> nn.Module:
    """A copy in which every shared convolution is a plain Conv3d of the same weights."""
    copy = deepcopy(model)
    for name, shared in shared_layers(copy).items():
        parent, _, own = name.rpartition(".")
        setattr(copy.get_submodule(parent), own, _plain(shared))
    return copy


def _plain(shared: SharedConv3d) -> nn.Conv3d:
    weight = shared.weight.detach()
    out, into, *size = weight.shape
    bias = shared.bias is not None
    conv = nn.Conv3d(into, out, tuple(size), shared.stride, shared.padding, shared.dilation, bias=bias)  # type: ignore[arg-type]
    conv.weight.data.copy_(weight)
    if conv.bias is not None and shared.bias is not None:
        conv.bias.data.copy_(shared.bias.detach())
    return conv


def expand(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with shared kernels -> that of the plain network. Others pass unchanged."""
    names = {key.removesuffix(f".{INDEX}") for key in weights if key.endswith(f".{INDEX}")}
    shared = {name for name in names if f"{name}.{KERNELS}" in weights and f"{name}.{SCALE}" in weights}
    taken = {f"{name}.{part}" for name in shared for part in (KERNELS, SCALE, INDEX)}
    plain = {key: value for key, value in weights.items() if key not in taken}
    for name in shared:
        kernels, scale, index = (weights[f"{name}.{part}"] for part in (KERNELS, SCALE, INDEX))
        plain[f"{name}.weight"] = dense(kernels.float(), scale.float(), index)
    return plain


def _smallest(count: int) -> torch.dtype:
    return torch.uint8 if count <= 256 else torch.uint16 if count <= 65536 else torch.int32
