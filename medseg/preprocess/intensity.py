"""Hounsfield units -> network input. Shared by training and inference, torch or numpy."""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

import numpy as np

from medseg.imaging.volume import Array

# What `prepare` does to a scan; the two of nnU-Net clip first and resample by cubic splines.
Intensity = Literal["window", "z-score", "nnunet-window", "nnunet-z-score"]


class _Array(Protocol):
    def clip(self, low: float, high: float, /) -> _Array: ...


T = TypeVar("T", bound=_Array)


def normalise(hu: T, window_hu: tuple[float, float]) -> T:
    """Clip to `window_hu` and scale linearly so that the window spans -1 ... 3.

    With the usual window of -300 ... 900 HU, water lies at 0 and one unit is 300 HU.
    """
    low, high = window_hu
    unit = (high - low) / 4
    return (hu.clip(low, high) - low) / unit - 1  # type: ignore[operator,return-value]


def normalise_in_place(hu: Array, window_hu: tuple[float, float]) -> Array:
    """As `normalise`, bit for bit, with no second array: `hu` (float32) itself is changed and returned."""
    low, high = window_hu
    np.clip(hu, low, high, out=hu)
    hu -= low
    hu /= (high - low) / 4
    hu -= 1
    return hu


def statistics(hu: Array, window_hu: tuple[float, float]) -> tuple[float, float]:
    """Mean and standard deviation of a scan's voxels, clipped to the window; HU. A flat scan deviates by 1."""
    clipped = hu.clip(*window_hu)
    deviation = float(clipped.std(dtype=np.float64))
    return float(clipped.mean(dtype=np.float64)), deviation if deviation > 0 else 1.0


def standardise(hu: T, window_hu: tuple[float, float], mean_hu: float, deviation_hu: float) -> T:
    """Clip to `window_hu`, subtract the mean, divide by the deviation (nnU-Net's and MONAI's z-score of a scan)."""
    return (hu.clip(*window_hu) - mean_hu) / deviation_hu  # type: ignore[operator,return-value]
