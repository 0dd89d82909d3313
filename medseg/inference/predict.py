"""A network over a prepared scan: precision, mirrored twin, finite checks, and only where the body is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from medseg.errors import ModelError
from medseg.imaging.volume import Array
from medseg.inference.streaming import Predictor, columns, stream_logits
from medseg.inference.windows import AIR, Windows, body_box
from medseg.preprocess.blocks import LogitBlock

_LEFT_RIGHT = 2  # of [B, C, i, j, k] in RAS order


def predict_blocks(
    network: Predictor,
    image: Array,
    *,
    window: tuple[int, int, int],
    overlap: float,
    precision: str = "bf16",
    mirrored_channels: Sequence[int] | None = None,
    parts: tuple[int, int] = (1, 1),
    on_window: Callable[[float], None] = lambda _: None,
) -> Iterator[LogitBlock]:
    """Logits of a normalised scan [i, j, k] as blocks, from its lower to its upper end.

    Windows overlap by `overlap` and are blended with Gaussian weights; those that hold only air are not
    computed. `mirrored_channels` names, for every channel, the one that it becomes when left and right
    are mirrored: then each window is seen mirrored as well, and the mean of both counts. `parts` cuts the plane
    to save memory. `on_window` gets the share that is done after each window and may raise to cancel.

    Raises:
        ModelError: the network returned something that is not finite.
    """
    box = body_box(image)
    inner = image[box]
    blocks = stream_logits(
        checked(network, precision, mirrored_channels),
        inner[None],
        Windows.over(inner.shape, window, overlap),
        cuts=columns(inner.shape, parts),
        skip=lambda tile: bool(tile.max() <= AIR),
        on_window=on_window,
    )
    for block in blocks:
        yield _moved(block, tuple(side.start for side in box))


def checked(network: Predictor, precision: str, mirrored_channels: Sequence[int] | None = None) -> Predictor:
    """The network at a precision, with its mirrored twin, refusing what is not finite."""

    def run(batch: Tensor) -> Tensor:
        return network(batch.to(memory_format=torch.channels_last_3d)).float()

    def predict(batch: Tensor) -> Tensor:
        with torch.inference_mode(), _autocast(precision):
            out = run(batch)
            if mirrored_channels is not None:
                out = (out + run(batch.flip(_LEFT_RIGHT))[:, mirrored_channels].flip(_LEFT_RIGHT)) / 2
            if not torch.isfinite(out).all():
                raise ModelError("The network returned values that are not finite; nothing was segmented.")
            return out

    return predict


def _moved(block: LogitBlock, by: tuple[int, ...]) -> LogitBlock:
    """The block of a box as one of the whole scan."""
    i, j, k = (at + step for at, step in zip(block.start, by, strict=True))
    cells = [slice(c.start + step, c.stop + step) for c, step in zip(block.cells, by, strict=True)]
    return replace(block, start=(i, j, k), cells=(cells[0], cells[1], cells[2]))


def cpu_precision() -> str:
    """'bf16' where this CPU multiplies it natively; elsewhere it is emulated, and 'fp32' is quicker."""
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def _autocast(precision: str) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
