"""Exponential moving average of a network's weights."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


def start_average(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode that learns by `update_average` alone."""
    return deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Move every floating tensor a little towards the network's; counters are copied.

    The memory is short at first, so that the random start is forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    theirs = network.state_dict(keep_vars=True)
    ours = _each_once(average.state_dict(keep_vars=True))
    floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay)
    for name in ours.keys() - set(floating):
        ours[name].copy_(theirs[name])


def _each_once(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without further names of the same tensor (DynUNet has them): moved twice, it would forget too soon."""
    names = {id(tensor): name for name, tensor in reversed(tensors.items())}
    return {name: tensor for name, tensor in tensors.items() if names[id(tensor)] == name}
