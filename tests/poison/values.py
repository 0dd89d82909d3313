"""C: values that are no Hounsfield units, and other modalities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.poison.base import FINE_OTHER, SHAPE, base, case, nifti_of, refused, warned


@case("C1", "offset of 1024 not subtracted", refused("NotHUError"))
def _(folder: Path) -> Path:
    return nifti_of(folder, base().hu + 1024, dtype=np.uint16)


@case("C2", "normalised to 0..1", refused("NotHUError"))
def _(folder: Path) -> Path:
    return nifti_of(folder, (base().hu + 1000) / 2000)


@case("C2b", "standardised to mean 0, SD 1", refused("NotHUError"))
def _(folder: Path) -> Path:
    return nifti_of(folder, (base().hu - base().hu.mean()) / base().hu.std())


@case("C3", "windowed to 0..255", refused("NotHUError"))
def _(folder: Path) -> Path:
    return nifti_of(folder, np.clip((base().hu + 160) / 400, 0, 1) * 255, dtype=np.uint8)


@case("C4", "clipped to -160..240", warned("clipped", truth=False))
def _(folder: Path) -> Path:
    return nifti_of(folder, np.clip(base().hu, -160, 240), dtype=np.int16)


def _magnitude(rng: np.random.Generator) -> np.ndarray:
    """Tissues as an MR sees them: no negative values, noisy zero outside, fat bright, bone dark."""
    hu = base().hu
    signal = np.where(hu < -500, 0, np.where(hu < 0, 900, np.where(hu > 500, 60, 420)))
    return np.abs(signal + rng.normal(0, 18, SHAPE))


@case("C5", "MR", refused("NotHUError"))
def _(folder: Path) -> Path:
    return nifti_of(folder, _magnitude(np.random.default_rng(3)), dtype=np.int16)


@case("C6", "PET in SUV", refused("NotHUError"))
def _(folder: Path) -> Path:
    uptake = np.where(base().hu > 100, 9.0, np.where(base().hu > -500, 1.2, 0.02))
    return nifti_of(folder, np.abs(uptake + np.random.default_rng(4).normal(0, 0.2, SHAPE)))


@case("C6b", "PET in Bq/ml", refused("NotHUError"))
def _(folder: Path) -> Path:
    uptake = np.where(base().hu > 100, 42000.0, np.where(base().hu > -500, 5200.0, 60.0))
    return nifti_of(folder, np.abs(uptake + np.random.default_rng(4).normal(0, 300, SHAPE)))


@case("C8", "X-ray film stacked", refused("NotHUError"))
def _(folder: Path) -> Path:
    return nifti_of(folder, np.clip(base().hu + 1000, 0, 4095) * 14.0, dtype=np.uint16)


@case("C10", "padding of -2000", FINE_OTHER)
def _(folder: Path) -> Path:
    hu = base().hu.copy()
    hu[:3] = -2000
    return nifti_of(folder, hu, dtype=np.int16)


@case("C11", "overflow in metal", warned("metal", truth=False))
def _(folder: Path) -> Path:
    hu = base().hu.copy()
    hu[15:17, 13:15, 10] = 32767
    return nifti_of(folder, hu, dtype=np.int16)


@case("C12", "inverted", refused("NotHUError"))
def _(folder: Path) -> Path:
    return nifti_of(folder, -base().hu, dtype=np.int16)


def _filled(folder: Path, first: int, last: int, value: float) -> Path:
    hu = base().hu.copy()
    hu[:, :, first:last] = value
    return nifti_of(folder, hu, dtype=np.int16)


case("C13", "last third filled with zeros", warned("blank_slices", truth=False))(
    lambda folder: _filled(folder, 15, SHAPE[2], 0)
)
case("C13b", "one slice of zeros", warned("blank_slices", truth=False))(lambda folder: _filled(folder, 9, 10, 0))
case("C13c", "one slice of air between others", warned("blank_slices", truth=False))(
    lambda folder: _filled(folder, 9, 10, -1024)
)
case("C13d", "padded with air at an end", FINE_OTHER)(lambda folder: _filled(folder, 20, SHAPE[2], -1024))
