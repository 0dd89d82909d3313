"""Are these numbers Hounsfield units? What the histogram proves, and no more.

Only what no CT can look like is refused: a cropped organ without air, a field of view
without lung, or an implant at the top of the scale are all right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import NonFiniteError, NotHUError
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.volume import Array, Finding

AIR_HU = -1024.0
"""What lies below is padding (-2000, -3024 ...) or noise in air, and is set to this."""
SAMPLE_VOXELS = 1_000_000
MIN_RANGE_HU = 60.0
MAX_SCALE_HU = 32767.0
METAL_HU = 3071.0
LEAP_HU = 500.0
BLANK_HU = -900.0
"""A slice of one value above this is no air."""


def check_finite(path: Path, values: Array) -> None:
    """Refuse NaN and infinity: one such voxel empties the mask of a network.

    Raises:
        NonFiniteError: with their number.
    """
    if values.dtype.kind != "f":
        return
    count = sum(int(values[..., k].size - np.isfinite(values[..., k]).sum()) for k in range(values.shape[-1]))
    if count:
        raise NonFiniteError(path, f"{count:,} of {values.size:,} voxels are NaN or infinite.")


def settle_padding(hu: Array) -> None:
    """Raise everything below `AIR_HU` to it, in place."""
    for k in range(hu.shape[-1]):
        np.maximum(hu[..., k], AIR_HU, out=hu[..., k])


@dataclass(frozen=True)
class _Histogram:
    """Shares (0..1) of a regular sample of the voxels, and the exact extremes."""

    sample: Array
    low: float
    high: float

    def share(self, first: float, last: float) -> float:
        return float(np.mean((self.sample >= first) & (self.sample <= last)))

    @property
    def darkest(self) -> float:
        """Share of voxels in the lowest twentieth of the range: the background, where there is one."""
        top = float(np.percentile(self.sample, 99.5))
        return self.share(self.low, self.low + 0.05 * (top - self.low))

    @property
    def range_text(self) -> str:
        return f"values run from {self.low:g} to {self.high:g}"


def _histogram(hu: Array) -> _Histogram:
    step = max(1, round((hu.size / SAMPLE_VOXELS) ** (1 / 3)))
    return _Histogram(np.ascontiguousarray(hu[::step, ::step, ::step]), float(hu.min()), float(hu.max()))


def check_hounsfield(path: Path, hu: Array, accept: Acceptance = NOTHING) -> tuple[Finding, ...]:
    """Refuse values that cannot be Hounsfield units; say what a reader should know of those that can.

    Args:
        path: the scan, for the text.
        hu: (i, j, k), finite, padding settled.
        accept: the user's reason to go on with other values.

    Raises:
        NotHUError: constant, normalised, windowed, shifted, inverted, overflown, or another modality.
    """
    histogram = _histogram(hu)
    for refuse in (_flat, _overflown, _shifted, _no_negative_air, _no_tissue):
        if reason := refuse(histogram):
            return accept.lift(NotHUError(path, reason))
    return _findings(histogram) + _blank_slices(hu, max(BLANK_HU, histogram.low))


def _flat(h: _Histogram) -> str:
    if h.high == h.low:
        return f"every voxel is {h.low:g}: there is no image."
    if h.high - h.low < MIN_RANGE_HU:
        return f"{h.range_text}: not Hounsfield units but normalised values."
    return ""


def _overflown(h: _Histogram) -> str:
    share = h.share(MAX_SCALE_HU + 1, np.inf)
    if share > 1e-3 or h.high > 1e6:
        return f"{h.range_text}: signed values were read as unsigned, or these are not Hounsfield units."
    return ""


def _shifted(h: _Histogram) -> str:
    """Soft tissue is the commonest thing above air: at 1000 it stands for a shift or a mirror image."""
    beyond = h.share(300, np.inf)
    near_thousand = h.share(850, 1250)
    if near_thousand < 0.02 or near_thousand < 0.5 * beyond or h.share(-np.inf, -850) > 0.01:
        return ""
    if h.low < -50:
        return f"{h.range_text} with air near +1000: the scale is inverted."
    return f"{h.range_text} with tissue near +1024: an offset of 1024 was not subtracted."


def _no_negative_air(h: _Histogram) -> str:
    """A background that is not air: windowed to 0..255, MR, PET, or masked with zeros."""
    if h.low <= -300 or _is_clipped(h):
        return ""
    if h.share(0, 0) > 0.3:
        return f"{h.range_text}, and the background is 0, which is water: a window, MR, or erased."
    if h.low <= -200 or h.darkest <= 0.2:
        return ""
    return f"{h.range_text}, and the background lies at {h.low:g}, where a CT has air at -1000: a window, MR or PET."


def _no_tissue(h: _Histogram) -> str:
    if h.share(1500, np.inf) > 0.3:
        return f"{h.range_text}, most of them denser than bone: not Hounsfield units."
    if h.share(-250, 350) < 1e-3:
        return f"{h.range_text}, but nothing has the density of soft tissue (-250 to 350)."
    return ""


def _is_clipped(h: _Histogram) -> bool:
    return -900 < h.low < -50 and h.share(h.low, h.low) > 0.05


def _findings(h: _Histogram) -> tuple[Finding, ...]:
    found = []
    if _is_clipped(h):
        found.append(Finding("clipped", f"Values are cut off below {h.low:g} HU: air and lung cannot be told apart."))
    if h.high > METAL_HU:
        text = f"Values reach {h.high:g} HU: metal, whose streaks may disturb the organs around it."
        found.append(Finding("metal", text, "info"))
    return tuple(found)


def _blank_slices(hu: Array, air: float) -> tuple[Finding, ...]:
    """Slices of one single value: where a damaged file was filled up, zeros look like water. Air at an end is none."""
    blank = [bool((hu[..., k] == hu[0, 0, k]).all()) for k in range(hu.shape[-1])]
    scanned = [k for k, one in enumerate(blank) if not one] or [0]
    within = range(scanned[0], scanned[-1])
    lost = [k for k, one in enumerate(blank) if one and (k in within or hu[0, 0, k] > air)]
    if not lost:
        return ()
    where = f"{len(lost)} slice(s) hold one single value (the first is slice {lost[0] + 1})"
    return (Finding("blank_slices", f"{where}: nothing was scanned there, or it was lost."),)


def leap_findings(hu: Array, scales: Sequence[object]) -> tuple[Finding, ...]:
    """Slices where the rescale of the header changes and the darkest values leap with it: one of the two is wrong.

    Args:
        hu: (i, j, k), slice by slice as they were read.
        scales: slope, intercept and type of each slice.
    """
    changes = [k for k in range(1, len(scales)) if scales[k] != scales[k - 1]]
    leaps = [k for k in changes if abs(_darkest(hu[..., k]) - _darkest(hu[..., k - 1])) > LEAP_HU]
    if not leaps:
        return ()
    where = f"at {len(leaps)} place(s), first between slices {leaps[0]} and {leaps[0] + 1}"
    return (Finding("rescale_leap", f"The rescale changes and the values leap {where}: some slices may be shifted."),)


def _darkest(picture: Array) -> float:
    return float(np.percentile(picture[::2, ::2], 5))
