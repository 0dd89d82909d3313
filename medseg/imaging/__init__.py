"""Files to `Volume`, and label maps to files. No torch here."""

from __future__ import annotations

from medseg.imaging.reader import read_volume
from medseg.imaging.volume import Finding, Geometry, Volume, reorient, restore_orientation

__all__ = ["Finding", "Geometry", "Volume", "read_volume", "reorient", "restore_orientation"]
