"""Hounsfield units -> network input. Shared by training and inference, torch or numpy."""

from __future__ import annotations

from typing import Protocol, TypeVar


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
