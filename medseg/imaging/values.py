"""From stored numbers to Hounsfield units."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import CorruptFileError
from medseg.imaging.volume import Array, Finding


def rescale(stored: Array, slope: float, inter: float) -> Array:
    """`stored * slope + inter` as float32 in the memory order of `stored`, slab by slab to spare memory."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by `check_finite`
        if slope == 1.0 and inter.is_integer() and stored.dtype.itemsize <= 2:
            # Sums of such numbers are exact in float32, the usual case by far.
            out = stored.astype(np.float32)
            return out if inter == 0.0 else np.add(out, np.float32(inter), out=out)
        if slope == 1.0 and inter == 0.0:
            return stored.astype(np.float32)
        if stored.ndim == 2:
            return (stored.astype(np.float64) * slope + inter).astype(np.float32)
        out = np.empty(stored.shape, np.float32, order="F")
        for k in range(stored.shape[-1]):
            out[..., k] = stored[..., k].astype(np.float64) * slope + inter
    return out


def trailing_finding(path: Path, extra: int, slice_bytes: int) -> tuple[Finding, ...]:
    """A word on `extra` bytes behind the voxels.

    Raises:
        CorruptFileError: they make a slice or more, so the header tells less than there is.
    """
    if not extra:
        return ()
    if extra >= slice_bytes:
        reason = f"holds {extra:,} bytes more than its header describes, {extra / slice_bytes:.1f} slices."
        raise CorruptFileError(path, reason)
    text = f"The file is {extra:,} bytes longer than its header says; what follows the voxels was not read."
    return (Finding("trailing_bytes", text),)
