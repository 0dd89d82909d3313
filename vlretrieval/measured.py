"""MeasuredEncoder: a study as its measurements. Nothing is learned, so it holds for every part of the body.

Two scans are near each other where body, fat, gas and organs measure alike. It reads no words: an archive that it
made is searched in words by terms, facts and filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medseg.imaging.volume import Array
from vlretrieval.inputs import ORGAN_NUMBERS, StudyInput, organ_table, scan_numbers
from vlretrieval.profile import Profile
from vlretrieval.study import Vectors

_PLACES = 16  # along the body, from its lower to its upper end
_CURVES = 3
_BODY_NUMBERS = 6  # of the scan's ten: how it was scanned is not what it shows
_ORGAN_USED = (0, 1, 2, 3, 7)  # there, volume, density, spread, height; not where the scan happens to end
_SCALE = 0.25


class MeasuredEncoder:
    """Vectors of measurements.

    Args:
        organs: of the segmenter's label table.
    """

    id = "measured@1"
    features = 0
    judges = False
    fusion: Mapping[str, float] = {}

    def __init__(self, organs: Sequence[str]) -> None:
        self.organs = tuple(organs)
        organ = 2 * len(_ORGAN_USED) + 1
        whole = _CURVES * _PLACES + _BODY_NUMBERS + len(_ORGAN_USED) * len(self.organs) + 1
        self.dim = -(-max(whole, organ) // 8) * 8  # an index cuts vectors into pieces of eight

    def studies(self, inputs: Sequence[StudyInput]) -> list[Vectors]:
        return [self._study(entry.profile) for entry in inputs]

    def words(self, text: str) -> None:
        return None

    def likelihood(self, text: str, vectors: Array) -> None:
        return None

    def match(self, text: str, features: Array) -> None:
        return None

    def _study(self, profile: Profile) -> Vectors:
        table = organ_table(profile, self.organs).reshape(len(self.organs), 2, ORGAN_NUMBERS)[..., _ORGAN_USED]
        whole = np.concatenate([_curves(profile), scan_numbers(profile)[-_BODY_NUMBERS:], table[:, 0].reshape(-1)])
        organs = {name: self._unit(table[n].reshape(-1)) for n, name in enumerate(self.organs) if table[n, 0, 0] > 0}
        return Vectors(self._unit(whole), organs)

    def _unit(self, numbers: Array) -> Array:
        """Numbers on a sphere (inverse stereographic projection), so that the largest dot product is the nearest."""
        point = _SCALE * np.pad(numbers, (0, self.dim - 1 - len(numbers)))
        square = float(point @ point)
        return np.append(2 * point, square - 1).astype(np.float32) / np.float32(square + 1)


def _curves(profile: Profile) -> Array:
    """Cross-section, fat and gas of the body from bottom to top, at as many places for every scan."""
    body = np.maximum(1, profile.body)
    curves = (profile.body / 1500, 2 * profile.fat / body, 3 * profile.gas / body)
    at = np.linspace(0, len(profile.body) - 1, _PLACES)
    return np.concatenate([np.interp(at, np.arange(len(curve)), curve) for curve in curves])
