"""Scans whose result is known beforehand, each with a body of its own."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.imaging.volume import Geometry, Volume
from tests.phantoms import write_nifti

SIDES = (24, 40, 64, 96, 144)
FIELD_MM = 192.0


@dataclass(frozen=True)
class Planted:
    """A scan as a file, and what the page has to say of it."""

    name: str
    side: int
    body_ml: str
    content: bytes

    @property
    def file(self) -> str:
        return f"{self.name}.nii.gz"


class Planter:
    """Hands out scans; no two bodies have the same volume in whole millilitres, as long as there are such."""

    def __init__(self) -> None:
        self._number, self._used, self._lock = 0, set[str](), threading.Lock()

    def next(self) -> Planted:
        """The next body, in the next size of scan."""
        with self._lock:
            while True:
                self._number += 1
                number = self._number
                side = SIDES[number % len(SIDES)]
                inside = _ball(side, 50 + 30 * ((number * 0.6180339887) % 1))
                body_ml = f"{inside.sum() * (FIELD_MM / side) ** 3 / 1000:.0f}"
                if body_ml not in self._used:
                    break
                if len(self._used) > 1000:
                    self._used.clear()
            self._used.add(body_ml)
        return Planted(f"planted-{number}", side, body_ml, _file(number, side, inside))


def _ball(side: int, radius_mm: float) -> np.ndarray:
    along = (np.arange(side) - (side - 1) / 2) * FIELD_MM / side
    squares = along**2
    found: np.ndarray = squares[:, None, None] + squares[None, :, None] + squares[None, None, :] < radius_mm**2
    return found


def _file(number: int, side: int, inside: np.ndarray) -> bytes:
    spacing = FIELD_MM / side
    hu = np.where(inside, 40, -1000).astype(np.float32)
    hu += np.random.default_rng(number).integers(-8, 9, hu.shape)
    volume = Volume(hu, Geometry(hu.shape, np.diag([-spacing, -spacing, spacing, 1.0])))
    with tempfile.TemporaryDirectory() as folder:
        return write_nifti(Path(folder) / "scan.nii.gz", volume).read_bytes()
