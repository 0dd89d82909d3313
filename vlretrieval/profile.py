"""Profile: what every axial slice of a study holds. Facts are read off it, and it can be cut.

A scan that is cut short is the profile between two slices: so that facts of shortened scans (training sees
thousands of them) cost nothing, and a fact is computed in one place from references, predictions and cuts alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from medseg.imaging.volume import Array
from vlretrieval.view import STEP_MM, StudyView

SLICE_ML = STEP_MM**3 / 1000
AREA_CM2 = STEP_MM**2 / 100
METAL_HU, GAS_HU = 1600, -400
FAT_HU = (-190, -30)


@dataclass(frozen=True)
class OrganProfile:
    """Per slice: voxels of an organ, the sum and the sum of squares of their HU."""

    voxels: Array
    hu: Array
    hu_squared: Array

    def cut(self, low: int, high: int) -> OrganProfile:
        return OrganProfile(self.voxels[low:high], self.hu[low:high], self.hu_squared[low:high])

    @property
    def volume_ml(self) -> float:
        return float(self.voxels.sum()) * SLICE_ML

    @property
    def mean_hu(self) -> float:
        return float(self.hu.sum() / max(1, self.voxels.sum()))

    @property
    def sd_hu(self) -> float:
        mean_square = float(self.hu_squared.sum() / max(1, self.voxels.sum()))
        return float(np.sqrt(max(0.0, mean_square - self.mean_hu**2)))

    @property
    def ends(self) -> tuple[int, int] | None:
        """First slice and the one after the last that hold it; None where it is empty."""
        where = np.flatnonzero(self.voxels)
        return (int(where[0]), int(where[-1]) + 1) if len(where) else None


@dataclass(frozen=True)
class Profile:
    """A study, slice by slice from feet to head; areas in voxels of 4 x 4 mm.

    Attributes:
        organs: of every organ that is named, found or not.
        known: organs about which the absence of voxels says something.
        body, fat, metal, gas: voxels per slice; gas lies inside the body.
        spacing_mm: of the scan as it was sent.
        field_mm: width of the scan from right to left.
    """

    organs: Mapping[str, OrganProfile]
    known: frozenset[str]
    body: Array
    fat: Array
    metal: Array
    gas: Array
    spacing_mm: tuple[float, float, float]
    field_mm: float

    @property
    def length_mm(self) -> float:
        return len(self.body) * STEP_MM

    def cut(self, low: int, high: int) -> Profile:
        """The same scan from slice `low` to before `high`."""
        return replace(
            self,
            organs={name: organ.cut(low, high) for name, organ in self.organs.items()},
            body=self.body[low:high],
            fat=self.fat[low:high],
            metal=self.metal[low:high],
            gas=self.gas[low:high],
        )

    def mirrored(self) -> Profile:
        """The same scan of a mirrored patient: right and left trade places."""
        return replace(
            self,
            organs={other_side(name): organ for name, organ in self.organs.items()},
            known=frozenset(other_side(name) for name in self.known),
        )


def other_side(name: str) -> str:
    """parotid_gland_right <-> parotid_gland_left; others as they are."""
    for end, other in (("_right", "_left"), ("_left", "_right")):
        if name.endswith(end):
            return name.removesuffix(end) + other
    return name


def build_profile(view: StudyView) -> Profile:
    """Count everything once."""
    hu = view.hu.astype(np.int64)
    inside = view.body
    fat = (hu > FAT_HU[0]) & (hu < FAT_HU[1]) & inside
    return Profile(
        {name: _organ(hu, view.organs == value) for name, value in view.names.items()},
        view.known,
        _count(inside),
        _count(fat),
        _count(hu >= METAL_HU),
        _count((hu < GAS_HU) & inside),
        view.spacing_mm,
        view.extent_mm[0],
    )


def _count(where: Array) -> Array:
    return where.sum(axis=(0, 1)).astype(np.float64)


def _organ(hu: Array, where: Array) -> OrganProfile:
    values = np.where(where, hu, 0)
    return OrganProfile(_count(where), _count(values), _count(values**2))
