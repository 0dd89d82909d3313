"""Two organs that lie like the left and the right of one, though their names say no side.

Patches that are mirrored would teach each of them on both sides, and no name tells. Sides are seen where names are
silent: side by side at one height, of one size, in nearly all cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from medseg.imaging.volume import Array
from medseg.labels import LabelTable

APART_MM = 20.0  # organs that are nearer than this may be one before the other
SHARE = 0.9  # of the cases in which both are drawn
FEWEST = 3
RATIO = 2.0  # of volumes

Places = Mapping[str, tuple[Array, float]]
"""Organ -> centre in RAS mm, volume in ml; of one case."""


def unnamed_sides(cases: Sequence[Places], labels: LabelTable) -> list[tuple[str, str]]:
    """Pairs of organs, in order of their values, that look like two sides of one and are not named so."""
    values = labels.names
    named = {frozenset(pair) for pair in labels.mirror_pairs()}
    pairs = [(a, b) for a, b in combinations(values, 2) if frozenset((values[a], values[b])) not in named]
    return [(a, b) for a, b in pairs if _alike([(case[a], case[b]) for case in cases if {a, b} <= case.keys()])]


def _alike(both: Sequence[tuple[tuple[Array, float], tuple[Array, float]]]) -> bool:
    if len(both) < FEWEST:
        return False
    ways = np.array([second[0] - first[0] for first, second in both])
    beside = (np.abs(ways[:, 0]) >= APART_MM) & (np.hypot(ways[:, 1], ways[:, 2]) <= np.abs(ways[:, 0]) / 2)
    alike = [max(first[1], second[1]) <= RATIO * min(first[1], second[1]) for first, second in both]
    good = beside & np.array(alike)
    return max((good & (ways[:, 0] > 0)).mean(), (good & (ways[:, 0] < 0)).mean()) >= SHARE


def told(pairs: Iterable[tuple[str, str]]) -> str:
    """For people: which organs, and the way out."""
    listed = ", ".join(f"{a} and {b}" for a, b in pairs)
    return (
        f"{listed} lie like the left and the right of one organ: name them NAME_left and NAME_right, "
        "or leave patches unmirrored (augment.mirror_left_right: 0)."
    )
