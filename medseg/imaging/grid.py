"""Is this a grid on which anatomy can be measured? Checks of an affine, shared by all doors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import GeometryError, NotVolumeError, TooLargeError
from medseg.imaging.volume import NOT_PROVABLE, Array, Finding, axis_lengths

# 4 GB as float32: larger than any clinical CT (2000 slices of 512 x 512 are 2.1 GB).
MAX_VOXELS = 1_000_000_000
MIN_SPACING_MM = 0.02
MAX_SPACING_MM = 50.0
COARSE_SPACING_MM = 7.5
# sin of the angle between axes; 0.06 degrees move the far side of a body by half a millimetre.
MAX_SHEAR = 1e-3
# A quaternion of float32 near a half turn is no better than some hundredths of a degree.
MAX_ANGLE_DEG = 0.1


def check_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The three lengths of a volume; axes of length one behind the third are dropped.

    Raises:
        NotVolumeError: fewer than three axes, several volumes, or a single slice.
        TooLargeError: more than `MAX_VOXELS`.
    """
    lengths = " x ".join(str(n) for n in shape)
    if len(shape) < 3:
        raise NotVolumeError(path, f"is an image of {len(shape)} dimensions ({lengths}), not a volume.")
    extra = math.prod(shape[3:])
    if extra != 1:
        raise NotVolumeError(path, f"holds {extra} volumes ({lengths}).")
    if min(shape[:3]) < 2:
        raise NotVolumeError(path, f"is a single slice ({lengths}).")
    check_size(path, math.prod(shape))
    return shape[0], shape[1], shape[2]


def check_size(path: Path, voxels: int) -> None:
    """Refuse what would not fit, before a byte of it is read.

    Raises:
        TooLargeError: more than `MAX_VOXELS`.
    """
    if voxels > MAX_VOXELS:
        raise TooLargeError(path, f"announces {voxels:,} voxels; {MAX_VOXELS:,} are accepted.")


def check_affine(path: Path, affine: Array) -> None:
    """Refuse an affine that does not describe a box of voxels in millimetres.

    Raises:
        GeometryError: NaN, empty or parallel axes, shear, or a spacing that no CT has.
    """
    if not np.isfinite(affine).all():
        raise GeometryError(path, "its orientation matrix holds NaN or infinite numbers.")
    with np.errstate(over="ignore"):
        spacing = axis_lengths(affine)
    columns = affine[:3, :3]
    listed = " x ".join(f"{mm:.4g}" for mm in spacing)
    if (spacing > 0).all() and not (spacing.min() >= MIN_SPACING_MM and spacing.max() <= MAX_SPACING_MM):
        raise GeometryError(path, f"its voxel spacing of {listed} mm cannot be that of a CT.")
    if (spacing == 0).any() or abs(np.linalg.det(columns / spacing)) < 1e-3:
        raise GeometryError(path, "its orientation matrix has an empty or doubled axis.")
    axes = columns / spacing
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > MAX_SHEAR:
        raise GeometryError(path, f"its axes are sheared by {math.degrees(math.asin(min(1.0, shear))):.2f} degrees.")


def coarse_findings(affine: Array) -> tuple[Finding, ...]:
    """A word on voxels so coarse that small organs fall between them."""
    spacing = axis_lengths(affine)
    if spacing.max() <= COARSE_SPACING_MM:
        return ()
    text = f"Slices are {spacing.max():.1f} mm apart: small organs and volumes are uncertain."
    return (Finding("coarse_spacing", text),)


def grids_differ(first: Array, second: Array, shape: tuple[int, ...], tolerance_mm: float) -> str:
    """How two affines of one grid contradict each other, in words; empty when they do not."""
    spacing_a, spacing_b = axis_lengths(first), axis_lengths(second)
    shift = float(np.linalg.norm(first[:3, 3] - second[:3, 3]))
    if not shift <= tolerance_mm:
        return f"the origin differs by {shift:.2f} mm"
    stretch = float((np.abs(spacing_a - spacing_b) * np.array(shape)).max())
    if not stretch <= tolerance_mm:
        pairs = ", ".join(f"{a:.4g}/{b:.4g}" for a, b in zip(spacing_a, spacing_b, strict=True))
        return f"the voxel spacing differs ({pairs} mm)"
    axes_a, axes_b = first[:3, :3] / spacing_a, second[:3, :3] / spacing_b
    # Half the angle between two unit vectors: its tangent is the chord over the diagonal of their rhombus.
    halves = np.arctan2(np.linalg.norm(axes_a - axes_b, axis=0), np.linalg.norm(axes_a + axes_b, axis=0))
    angle = 2 * math.degrees(halves.max())
    return f"the axes differ by {angle:.2f} degrees" if angle > MAX_ANGLE_DEG else ""


def file_evidence(readers: tuple[str, str], apart_mm: float, *, checksum: bool) -> dict[str, Any]:
    """What stands behind a volume that came in one file, for the run report."""
    return {
        "readers": list(readers),
        "agreement": "size and affine",
        "largest_corner_difference_mm": round(apart_mm, 6),
        "completeness": "checksum and length" if checksum else "length",
        "not_provable": NOT_PROVABLE,
    }
