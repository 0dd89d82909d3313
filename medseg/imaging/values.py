"""From stored numbers to Hounsfield units."""

from __future__ import annotations

import numpy as np

from medseg.imaging.volume import Array, Finding


def rescale(stored: Array, slope: float, inter: float) -> Array:
    """`stored * slope + inter` as float32 in the memory order of `stored`, slab by slab to spare memory."""
    if slope == 1.0 and inter == 0.0:
        return stored.astype(np.float32)
    out = np.empty(stored.shape, np.float32, order="F")
    for k in range(stored.shape[-1]):
        out[..., k] = stored[..., k].astype(np.float64) * slope + inter
    return out


def trailing_finding(extra: int) -> tuple[Finding, ...]:
    """A word on bytes behind the voxels."""
    if not extra:
        return ()
    text = f"The file is {extra:,} bytes longer than its header says; what follows the voxels was not read."
    return (Finding("trailing_bytes", text),)
