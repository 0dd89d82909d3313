"""Regions that others have drawn on a scan (RT structures, DICOM segmentations), as masks on its grid.

Structures may overlap and there may be a hundred of them, so a mask is drawn when it is asked for and
not kept. Knows the types; the files are read by `rtstruct` and `seg`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medseg.errors import DataError
from medseg.imaging.volume import Array, Finding, Geometry


@dataclass(frozen=True)
class Structure:
    """One named region.

    Attributes:
        name: as the file says it, fit to be shown.
        number: its number in the file.
        colour: RGB 0 ... 255, where the file gives one.
        code: SNOMED CT concept id, where the file gives one.
        draw: makes the mask; use `mask`.
    """

    name: str
    number: int
    colour: tuple[int, int, int] | None = None
    code: str = ""
    draw: Callable[[], Array] = field(repr=False, compare=False, default=lambda: np.zeros(0, bool))

    @property
    def mask(self) -> Array:
        """bool on the grid of the scan; drawn anew each time."""
        return self.draw()


@dataclass(frozen=True)
class StructureSet:
    """What one file holds.

    Attributes:
        geometry: the grid on which masks are drawn.
        structures: in the order of the file.
        findings: what a reader should know, e.g. contours beyond the scan.
    """

    geometry: Geometry
    structures: tuple[Structure, ...]
    findings: tuple[Finding, ...] = ()

    def __getitem__(self, name: str) -> Structure:
        """The structure of that name.

        Raises:
            DataError: there is none, or more than one.
        """
        found = [structure for structure in self.structures if structure.name == name]
        if len(found) != 1:
            known = ", ".join(structure.name for structure in self.structures) or "none"
            count = "no structure is" if not found else f"{len(found)} structures are"
            raise DataError(f"{count} called {name!r}; there are: {known}.")
        return found[0]

    def label_map(self, values: Mapping[str, int]) -> tuple[Array, tuple[Finding, ...]]:
        """One uint8 map of several structures; where they overlap, the one named first in `values` stays.

        Args:
            values: name of the structure -> its value in the map.

        Returns:
            The map, and a finding where voxels were claimed twice.

        Raises:
            DataError: a structure is not there, or is there twice.
        """
        labels = np.zeros(self.geometry.shape, np.uint8)
        claimed = 0
        for name, value in values.items():
            mask = self[name].mask
            free = labels == 0
            claimed += int((mask & ~free).sum())
            labels[mask & free] = value
        return labels, overlap_findings(claimed, list(values))


def overlap_findings(voxels: int, names: Sequence[str]) -> tuple[Finding, ...]:
    """A word on voxels that belong to more than one structure."""
    if not voxels:
        return ()
    text = f"{voxels:,} voxels belong to more than one of {', '.join(names)}: the first keeps them."
    return (Finding("overlap", text),)
