"""A block's features computed again on the way back in place of being kept (Chen et al., Training Deep Nets with
Sublinear Memory Cost, 2016), by PyTorch's own checkpointing; running means of norms still count each batch once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, *inputs: Tensor) -> Tensor:
    """`block(*inputs)`; its gradients are those of a block that keeps everything. It must draw no random numbers.

    In a compiled network such a block runs as written, between the graphs of the rest.
    """
    # torch.compile cannot follow the checkpoint's contexts. As a decorator this would cost every import a second.
    run = torch.compiler.disable(_checkpointed) if torch.compiler.is_compiling() else _checkpointed
    return run(block, *inputs)


def _checkpointed(block: nn.Module, *inputs: Tensor) -> Tensor:
    found: Tensor = checkpoint(
        block,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(block)),
    )
    return found


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second look at a batch teaches copies of the running means."""
    own = [(module, dict(module.named_buffers(recurse=False))) for module in block.modules()]
    _put([(module, {name: buffer.clone() for name, buffer in buffers.items()}) for module, buffers in own])
    try:
        yield
    finally:
        _put(own)


def _put(buffers: Iterable[tuple[nn.Module, Mapping[str, Tensor]]]) -> None:
    for module, tensors in buffers:
        for name, tensor in tensors.items():
            setattr(module, name, tensor)
