"""Reference contours unlike the same organ's in the other cases: cut off, of something else, or beside the anatomy.

Outliers by the modified z-score (Iglewicz and Hoaglin, How to Detect and Handle Outliers, ASQC 1993): of the logarithm
of the volume, and of the median density inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from medseg.imaging.volume import Array

Z = 3.5  # Iglewicz and Hoaglin's own limit
FACTOR = 2.0  # patients differ: below this no size is strange, however alike the others are
HU = 100.0  # nor any density nearer than this: contrast agent and scanners differ
FEWEST = 8  # cases; the spread of fewer means little

Outlier = tuple[int, str, float, float]


def touches_end(where: Array, slices: int) -> bool:
    """Whether an organ reaches the first or last axial slice; `where` is its voxels' indices, [n, 3]."""
    return bool(where[:, 2].min() == 0 or where[:, 2].max() == slices - 1)


def strange_sizes(volumes_ml: Sequence[Mapping[str, float]]) -> list[Outlier]:
    """(case, organ, its ml, median ml) of every outlier; one mapping a case, of its whole organs' volumes.

    An organ that the scan cuts is rightly small: leave it out.
    """
    return [
        (cases[n], organ, float(sizes[n]), float(np.median(sizes)))
        for organ, cases, sizes in _by_organ(volumes_ml)
        for n in _outliers(np.log(sizes), float(np.log(FACTOR)))
    ]


def strange_densities(median_hu: Sequence[Mapping[str, float]]) -> list[Outlier]:
    """(case, organ, its HU, median HU) of every outlier; one mapping a case, of the median HU inside its organs."""
    return [
        (cases[n], organ, float(hu[n]), float(np.median(hu)))
        for organ, cases, hu in _by_organ(median_hu)
        for n in _outliers(hu, HU)
    ]


def _by_organ(values: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, list[int], Array]]:
    """Organ, the cases that have it, and their values."""
    for organ in sorted({organ for case in values for organ in case}):
        cases = [number for number, case in enumerate(values) if organ in case]
        yield organ, cases, np.array([values[number][organ] for number in cases])


def _outliers(values: Array, least: float) -> list[int]:
    """Places of the values that lie farther from the median than `least` and than the others' spread explains."""
    if len(values) < FEWEST:
        return []
    apart = np.abs(values - np.median(values))
    spread = float(np.median(apart)) / 0.6745  # of a normal distribution: its standard deviation
    return [int(n) for n in np.flatnonzero((apart > least) & (apart > Z * spread))]
