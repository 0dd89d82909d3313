"""A network over a prepared scan: window by window, and only where the body is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from medseg.errors import ModelError
from medseg.imaging.volume import Array
from medseg.inference.streaming import Predict, Refine, columns, stream_logits
from medseg.inference.windows import AIR, Box, Windows, body_box, common, reached
from medseg.models.card import InputSpec
from medseg.preprocess.blocks import LogitBlock

ENOUGH_TILES = 4


def predict_blocks(
    network: Predict,
    image: Array,
    spec: InputSpec,
    *,
    air: float = AIR,
    parts: tuple[int, int] = (1, 1),
    refine: Refine | None = None,
    batch: int = 1,
    within: Box | None = None,
    body: Box | None = None,
    on_window: Callable[[float], None] = lambda _: None,
) -> Iterator[LogitBlock]:
    """Logits of a normalised scan [i, j, k] as blocks, from its lower to its upper end.

    Windows lie as `spec` says and are blended with Gaussian weights. Only in the `body`, or where something denser
    than `air` is, are they computed, unless the card asks for another tool's layout, which covers the whole scan; and
    only `within` a box of voxels, where one is given. Either is widened to a window's size, as far as the scan reaches:
    a network sees the scan's own voxels before any filling.
    `parts` cuts the plane to save memory; `refine` is that of `stream_logits`.
    `on_window` gets the share that is done after each `batch` of windows and may raise to cancel.
    """
    everywhere = spec.spread is not None
    body = body or body_box(image, -math.inf if everywhere else air)
    box = reached(common(body, within), spec, image.shape)
    inner = image[box]
    blocks = stream_logits(
        network,
        inner[None],
        Windows.of(spec, inner.shape),
        cuts=columns(inner.shape, parts),
        skip=lambda tile: not everywhere and bool(tile.max() <= air),
        refine=refine,
        air=spec.beyond,
        batch=batch,
        on_window=on_window,
    )
    for block in blocks:
        yield _moved(block, tuple(side.start for side in box))


def checked(network: Predict) -> Predict:
    """The network, refusing what is not finite.

    Raises (when called):
        ModelError: the network returned something that is not finite.
    """

    def predict(batch: Tensor) -> Tensor:
        out = network(batch)
        if not torch.isfinite(out).all():
            raise ModelError("The network returned values that are not finite; nothing was segmented.")
        return out

    return predict


class Paced:
    """A network that knows how long its windows took, of all that were computed since it was last asked."""

    def __init__(self, network: Predict) -> None:
        self.network, self.seconds, self.tiles = network, 0.0, 0

    def __call__(self, batch: Tensor) -> Tensor:
        began = time.perf_counter()
        out = self.network(batch)
        self.seconds, self.tiles = self.seconds + time.perf_counter() - began, self.tiles + len(batch)
        return out

    def pace(self) -> float | None:
        """Seconds of one window, and begin anew; None after too few to tell."""
        found = self.seconds / self.tiles if self.tiles >= ENOUGH_TILES else None
        self.seconds, self.tiles = 0.0, 0
        return found


def _moved(block: LogitBlock, by: tuple[int, ...]) -> LogitBlock:
    """The block of a box as one of the whole scan."""
    i, j, k = (at + step for at, step in zip(block.start, by, strict=True))
    cells = [slice(c.start + step, c.stop + step) for c, step in zip(block.cells, by, strict=True)]
    return replace(block, start=(i, j, k), cells=(cells[0], cells[1], cells[2]))
