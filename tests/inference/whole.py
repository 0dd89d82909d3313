"""Blocks put together again, for tests that look at all logits at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from medseg.imaging.volume import Array
from medseg.preprocess.blocks import LogitBlock


def gather(blocks: Iterable[LogitBlock], shape: tuple[int, ...]) -> Array:
    """The logits [C, *shape] of all blocks."""
    parts = list(blocks)
    out = np.zeros((max(len(part.logits) for part in parts), *shape), dtype=np.float32)
    for part in parts:
        out[(slice(0, len(part.logits)), *part.place)] = part.logits
    return out
