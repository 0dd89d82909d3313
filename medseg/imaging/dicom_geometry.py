"""From the places of slices to one grid: order, gaps, tilt, and the affine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import DuplicateSlicesError, GantryTiltError, GeometryError, MissingSlicesError, NotVolumeError
from medseg.imaging.dicom_headers import SliceHeader
from medseg.imaging.volume import Array, Finding

SAME_PLACE_MM = 0.01
STEP_TOLERANCE_MM = 0.05
STEP_TOLERANCE = 0.02
MAX_TILT_DEG = 0.05
MAX_DRIFT_MM = 0.1
_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Stack:
    """Places from foot to head (along the normal of the slices), each with the slices that lie there."""

    places: tuple[tuple[SliceHeader, ...], ...]
    normal: Array


def stack_slices(source: Path, slices: Sequence[SliceHeader]) -> Stack:
    """Order slices along their common normal; slices at the same place lie together.

    Raises:
        NotVolumeError: they all lie at one place.
        DuplicateSlicesError: slices at different places share one identity.
    """
    normal = _normal(slices[0])
    ordered = sorted(slices, key=lambda h: (_along(h, normal), h.file.label))
    places: list[list[SliceHeader]] = []
    for header in ordered:
        if places and _along(header, normal) - _along(places[-1][0], normal) < SAME_PLACE_MM:
            places[-1].append(header)
        else:
            places.append([header])
    if len(places) < 2:
        raise NotVolumeError(source, "all its slices lie at one place: a single slice.")
    _check_identity(source, places)
    return Stack(tuple(tuple(p) for p in places), normal)


def _normal(header: SliceHeader) -> Array:
    axes = np.array(header.orientation).reshape(2, 3)
    normal = np.cross(axes[0], axes[1])
    return np.asarray(normal / np.linalg.norm(normal))


def _along(header: SliceHeader, normal: Array) -> float:
    return float(np.dot(header.position or (0, 0, 0), normal))


def _check_identity(source: Path, places: Sequence[Sequence[SliceHeader]]) -> None:
    owner: dict[str, int] = {}
    for k, place in enumerate(places):
        for header in place:
            if header.sop_uid and owner.setdefault(header.sop_uid, k) != k:
                text = f"{header.file.label} has the same SOP Instance UID as another slice at a different place."
                raise DuplicateSlicesError(source, text)


def grid_affine(source: Path, slices: Sequence[SliceHeader]) -> Array:
    """The affine (column, row, slice) -> RAS mm of ordered slices, one at each place.

    It is built from the first slice and the mean step, and every slice has to lie where it says.

    Raises:
        MissingSlicesError, GantryTiltError, GeometryError: the places do not form a grid.
    """
    positions = np.array([s.position for s in slices], dtype=np.float64)
    normal = _normal(slices[0])
    _check_tilt(source, positions, normal)
    step = _check_steps(source, positions @ normal)
    affine = _affine(slices[0], positions, normal * step)
    predicted = affine[:3, 2] * np.arange(len(slices))[:, None] + affine[:3, 3]
    off = np.linalg.norm(predicted - positions * _TO_RAS, axis=1)
    if off.max() > max(2 * STEP_TOLERANCE_MM, STEP_TOLERANCE * step, MAX_DRIFT_MM):
        worst = slices[int(off.argmax())].file.label
        raise GeometryError(source, f"{worst} lies {off.max():.2f} mm off the line of the other slices.")
    return affine


def _affine(first: SliceHeader, positions: Array, step: Array) -> Array:
    rows_mm, columns_mm = first.spacing or (0.0, 0.0)
    axes = np.array(first.orientation).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0] = axes[0] * columns_mm * _TO_RAS
    affine[:3, 1] = axes[1] * rows_mm * _TO_RAS
    affine[:3, 2] = step * _TO_RAS
    affine[:3, 3] = positions[0] * _TO_RAS
    return affine


def _check_tilt(source: Path, positions: Array, normal: Array) -> None:
    travel = positions[-1] - positions[0]
    drift = float(np.linalg.norm(travel - normal * (travel @ normal)))
    angle = math.degrees(math.atan2(drift, abs(float(travel @ normal))))
    if drift > MAX_DRIFT_MM and angle > MAX_TILT_DEG:
        raise GantryTiltError(source, f"the slices are sheared by {angle:.1f} degrees (gantry tilt).")


def _check_steps(source: Path, along: Array) -> float:
    """The common step in mm."""
    steps = np.diff(along)
    base = float(np.sort(steps)[(len(steps) - 1) // 2])
    tolerance = max(STEP_TOLERANCE_MM, STEP_TOLERANCE * base)
    odd = np.flatnonzero(np.abs(steps - base) > tolerance)
    if len(odd):
        raise _odd_steps(source, along, steps, base, odd, tolerance)
    return float(along[-1] - along[0]) / len(steps)


def _odd_steps(source: Path, along: Array, steps: Array, base: float, odd: Array, tolerance: float) -> GeometryError:
    multiples = np.round(steps[odd] / base)
    gaps = (multiples >= 2) & (np.abs(steps[odd] - multiples * base) <= multiples * tolerance)
    if not gaps.all() or len(odd) > len(steps) / 3:
        text = f"slices are {steps.min():.2f} to {steps.max():.2f} mm apart; one even spacing is needed."
        return GeometryError(source, text)
    missing = int((multiples - 1).sum())
    first = int(odd[0])
    where = f"after slice {first + 1} of {len(along)} (between {along[first]:.1f} and {along[first + 1]:.1f} mm)"
    more = f", and in {len(odd) - 1} more place(s)" if len(odd) > 1 else ""
    return MissingSlicesError(source, f"{missing} slice(s) are missing {where}{more}.")


def tilt_findings(slices: Sequence[SliceHeader]) -> tuple[Finding, ...]:
    """A word where the header names a tilt that the places do not show."""
    tilt = max(abs(s.tilt_deg) for s in slices)
    normal = _normal(slices[0])
    if tilt < 0.5 or abs(normal).max() < 0.9999:
        return ()
    text = f"The header names a gantry tilt of {tilt:g} degrees, but the slices lie straight: check the geometry."
    return (Finding("gantry_tilt", text),)
