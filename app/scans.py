"""A scan as the server shows it: facts, the file of HU, copies for the viewer, values at a place.

Everything is mapped from the disk: nothing of the volume stays in the server's memory. Knows no medseg and no
streamlit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.nifti_bytes import nifti_bytes

FACTS, HU = "scan.json", "hu.npy"
MASK, PAGE = "mask.npy", "page.json"
Array = NDArray[Any]


@dataclass(frozen=True)
class Note:
    """A remark that a reader should see; `code` finds its translation."""

    code: str
    message: str
    severity: str


@dataclass(frozen=True)
class Scan:
    """A scan that has been read; `folder` holds its files."""

    folder: Path
    facts: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along right, front, head."""
        x, y, z = self.facts["shape"]
        return x, y, z

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Along the same axes."""
        x, y, z = self.facts["spacing_mm"]
        return x, y, z

    @cached_property
    def affine(self) -> Array:
        """(x, y, z) of the canonical array -> RAS mm."""
        return np.array(self.facts["affine"])

    @property
    def notes(self) -> tuple[Note, ...]:
        """What the intake said."""
        return tuple(Note(n["code"], n["message"], n["severity"]) for n in self.facts["findings"])

    def hu(self) -> Array:
        """int16 [x, y, z], mapped from the disk."""
        hu: Array = np.load(self.folder / HU, mmap_mode="r")
        return hu

    def voxel_at(self, place_mm: tuple[float, float, float]) -> tuple[int, int, int] | None:
        """The voxel of a place (RAS mm); None beyond the scan."""
        index = np.linalg.inv(self.affine) @ [*place_mm, 1.0]
        x, y, z = (int(n) for n in np.floor(index[:3] + 0.5))
        inside = all(0 <= n < size for n, size in zip((x, y, z), self.shape, strict=True))
        return (x, y, z) if inside else None

    def half_floats(self) -> Iterator[bytes]:
        """The HU as float16, slice by slice from the feet: exact to 2048, to 2 HU up to 4096."""
        hu = self.hu()
        for k in range(self.shape[2]):
            yield np.clip(hu[:, :, k], -65000, 65000).astype("<f2").tobytes(order="F")

    def small_copy(self, side: int) -> bytes:
        """A NIfTI of at most `side` voxels along each axis that fills the same space."""
        hu, axes, steps = self.hu(), [], []
        for size in self.shape:
            count = min(side, size)
            steps.append(size / count)
            axes.append(np.clip(np.floor((np.arange(count) + 0.5) * size / count).astype(int), 0, size - 1))
        small = np.asfortranarray(hu[:, :, axes[2]][axes[0]][:, axes[1]])
        stretch = np.diag([*steps, 1.0])
        stretch[:3, 3] = [(step - 1) / 2 for step in steps]
        return nifti_bytes(small, self.affine @ stretch)


def read_scan(folder: Path) -> Scan | None:
    """The scan that was laid out in a folder; None while there is none."""
    path = folder / FACTS
    return Scan(folder, json.loads(path.read_text("utf-8"))) if path.is_file() else None
