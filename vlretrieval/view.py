"""StudyView: what encoders and facts see of a CT, on one coarse grid, whatever scanner sent it.

An archive holds scans of half a millimetre beside scans of four. Numbers that are compared across it
(fat, metal, thickness of a neck) have to be taken on one grid: 4 mm, anti-aliased, nearest RAS order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import DataError
from medseg.imaging.emit import emit
from medseg.imaging.volume import Array, Geometry, Volume, reorient
from medseg.inference.tissue import find_body
from medseg.preprocess.resample import grid_like, resample, resample_labels

STEP_MM = 4.0
AIR_HU, DENSE_HU = -1024.0, 3071.0


@dataclass(frozen=True)
class StudyView:
    """A scan on the common grid.

    Attributes:
        hu: int16 [i, j, k], indexed along right to left, posterior to anterior, feet to head.
        organs: uint8 on the same grid, 0 is none.
        names: {organ: value} of `organs`.
        known: organs whose absence from `organs` means that they are not there; others are unknown.
        spacing_mm: of the scan as it was sent.
        extent_mm: size of the scan along the three axes.
    """

    hu: Array
    organs: Array
    names: Mapping[str, int]
    known: frozenset[str]
    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]

    @cached_property
    def body(self) -> Array:
        """The patient without couch; bool."""
        return find_body(self.hu.astype(np.float32))

    @property
    def num_slices(self) -> int:
        return int(self.hu.shape[2])

    def save(self, path: Path) -> None:
        """Write as .npz without pickles."""
        names = sorted(self.names)
        header: dict[str, Any] = {
            "names": np.array(names),
            "values": np.array([self.names[name] for name in names]),
            "known": np.array(sorted(self.known), dtype=str),
            "spacing_mm": np.array(self.spacing_mm),
            "extent_mm": np.array(self.extent_mm),
        }

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, hu=self.hu, organs=self.organs, **header)

        emit(path, write)

    @classmethod
    def load(cls, path: Path) -> StudyView:
        """The inverse of `save`.

        Raises:
            DataError: the file is none of ours, or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names = dict(zip(file["names"].tolist(), file["values"].tolist(), strict=True))
                i, j, k = file["spacing_mm"].tolist()
                x, y, z = file["extent_mm"].tolist()
                return cls(file["hu"], file["organs"], names, frozenset(file["known"].tolist()), (i, j, k), (x, y, z))
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise DataError(f"{path.name} is no stored view of a study ({error}).") from error


def build_view(
    volume: Volume, organs: Array, names: Mapping[str, int], known: frozenset[str] | None = None
) -> StudyView:
    """A scan and its label map (on the scan's grid) -> the common grid.

    `known` is every organ of `names` if not given: true of a segmentation, not of partial contours.
    """
    ornt, source = volume.geometry.to_canonical, volume.geometry.canonical()
    target = grid_like(source, (STEP_MM,) * 3)
    hu = resample(reorient(volume.hu, ornt), source, target, limits=(AIR_HU, DENSE_HU))
    fitted = _organs_on(reorient(organs, ornt), source, target, names)
    x, y, z = (size * step for size, step in zip(source.shape, source.spacing_mm, strict=True))
    return StudyView(
        np.round(hu).astype(np.int16),
        fitted,
        dict(names),
        frozenset(names) if known is None else known,
        source.spacing_mm,
        (float(x), float(y), float(z)),
    )


def _organs_on(organs: Array, source: Geometry, target: Geometry, names: Mapping[str, int]) -> Array:
    if not organs.any():
        return np.zeros(target.shape, dtype=np.uint8)
    return resample_labels(organs, source, target, max(names.values()) + 1)
