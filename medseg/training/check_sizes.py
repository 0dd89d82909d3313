"""Reference contours far smaller or larger than the same organ's in the other cases: cut off, or of something else.

Outliers of the logarithm of the volume by the modified z-score (Iglewicz and Hoaglin, How to Detect and Handle
Outliers, ASQC 1993). An organ that the scan cuts is rightly small, and so is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medseg.imaging.volume import Array

Z = 3.5  # Iglewicz and Hoaglin's own limit
FACTOR = 2.0  # patients differ: below this no size is strange, however alike the others are
FEWEST = 8  # cases; the spread of fewer means little


def touches_end(where: Array, slices: int) -> bool:
    """Whether an organ reaches the first or last axial slice; `where` is its voxels' indices, [n, 3]."""
    return bool(where[:, 2].min() == 0 or where[:, 2].max() == slices - 1)


def strange_sizes(volumes_ml: Sequence[Mapping[str, float]]) -> list[tuple[int, str, float, float]]:
    """(case, organ, its ml, median ml) of every outlier; one mapping a case, of its whole organs' volumes."""
    found = []
    for organ in sorted({organ for case in volumes_ml for organ in case}):
        cases = [number for number, case in enumerate(volumes_ml) if organ in case]
        sizes = np.array([volumes_ml[number][organ] for number in cases])
        middle = float(np.median(sizes))
        found += [(cases[n], organ, float(sizes[n]), middle) for n in np.flatnonzero(_outliers(sizes))]
    return found


def _outliers(sizes: Array) -> Array:
    apart = np.log(sizes) - np.median(np.log(sizes))
    if len(sizes) < FEWEST:
        return np.zeros(len(sizes), bool)
    spread = float(np.median(np.abs(apart))) / 0.6745  # of a normal distribution: its standard deviation
    return (np.abs(apart) > np.log(FACTOR)) & (np.abs(apart) > Z * spread)
