"""From the places of slices to one grid: order, gaps, tilt, and the affine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import DuplicateSlicesError, GantryTiltError, GeometryError, MissingSlicesError, NotVolumeError
from medseg.imaging.dicom_headers import SliceHeader
from medseg.imaging.volume import LPS_TO_RAS, Array, Finding, axis_lengths

SAME_PLACE_MM = 0.01
STEP_TOLERANCE_MM = 0.05
STEP_TOLERANCE = 0.02
MAX_TILT_DEG = 0.05
MAX_DRIFT_MM = 0.1
MAX_STRAIGHTENED_DEG = 45.0
TILT_AGREES_DEG = 1.0
MIN_BLOCK_STEPS = 3
MAX_UNEVEN_STEP_MM = 10.0
LOCATION_TOLERANCE_MM = 0.5


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
    ordered = sorted(slices, key=lambda h: (_along(h, normal), h.file.label, h.frame))
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
    return float(np.array(header.position, dtype=np.float64) @ normal)


def _check_identity(source: Path, places: Sequence[Sequence[SliceHeader]]) -> None:
    owner: dict[tuple[str, int], int] = {}
    for k, place in enumerate(places):
        for header in place:
            if header.sop_uid and owner.setdefault((header.sop_uid, header.frame), k) != k:
                text = f"{header.label} has the same SOP Instance UID as another slice at a different place."
                raise DuplicateSlicesError(source, text)


@dataclass(frozen=True)
class Layout:
    """How ordered slices lie, one at each place.

    Attributes:
        affine: (column, row, slice) -> RAS mm of a straight, even grid that begins with the first slice.
        drift_mm: (slices, 2) how far each is to be shifted back beside the normal through the first, along its rows and
            its columns; an axis along which they stay is 0; None where they lie straight.
        along_mm: place of each along the normal, from 0; None where they are evenly spaced.
        tilt_deg: angle of the drift; 0 where they lie straight.
    """

    affine: Array
    drift_mm: Array | None
    along_mm: Array | None
    tilt_deg: float

    @property
    def is_grid(self) -> bool:
        """Whether the slices form the grid as they are."""
        return self.drift_mm is None and self.along_mm is None


def lay_out(source: Path, slices: Sequence[SliceHeader]) -> Layout:
    """Order, gaps, tilt and spacing of ordered slices, one at each place.

    Raises:
        MissingSlicesError, GantryTiltError, GeometryError: the places form no grid, and none can be made of them
            without inventing anatomy.
    """
    positions = np.array([s.position for s in slices], dtype=np.float64)
    normal = _normal(slices[0])
    along = positions @ normal
    drift, tilt = _drift(source, slices, positions - positions[0], along - along[0])
    step, levels = _steps(source, slices, along)
    affine = _affine(slices[0], positions, normal * step)
    layout = Layout(affine, drift, levels, tilt)
    _check_corners(source, slices, layout, step)
    return layout


def _check_corners(source: Path, slices: Sequence[SliceHeader], layout: Layout, step: float) -> None:
    """The corners of every picture, from its own header, have to lie where the layout puts them."""
    limit = max(MAX_DRIFT_MM, STEP_TOLERANCE * step)
    off = corner_distances(slices, layout)
    if not off.max() <= limit:  # a NaN, too, is no place
        worst = slices[int(off.argmax())].label
        raise GeometryError(source, f"{worst} lies {off.max():.2f} mm off the line of the other slices.")


def corner_distances(slices: Sequence[SliceHeader], layout: Layout) -> Array:
    """For each slice the largest distance in mm between a corner by its own header and by the layout."""
    last = np.array([(i, j) for i in (0, slices[0].columns - 1) for j in (0, slices[0].rows - 1)], dtype=np.float64)
    axes = layout.affine[:3, :3].T
    units = axes / axis_lengths(layout.affine)[:, None]
    far = []
    for k, header in enumerate(slices):
        own = _affine(header, np.array([header.position]), np.zeros(3))
        theirs = last @ own[:3, :2].T + own[:3, 3]
        corner = layout.affine[:3, 3] + (axes[2] * k if layout.along_mm is None else units[2] * layout.along_mm[k])
        if layout.drift_mm is not None:
            corner = corner + layout.drift_mm[k] @ units[:2]
        far.append(np.linalg.norm(last @ axes[:2] + corner - theirs, axis=1).max())
    return np.array(far)


def _affine(first: SliceHeader, positions: Array, step: Array) -> Array:
    rows_mm, columns_mm = np.array(first.spacing, dtype=np.float64)
    across, down = np.array(first.orientation).reshape(2, 3)
    lps = np.eye(4)
    lps[:3] = np.stack([across * columns_mm, down * rows_mm, step, positions[0]], axis=1)
    return np.asarray(LPS_TO_RAS @ lps)


def _drift(source: Path, slices: Sequence[SliceHeader], travel: Array, along: Array) -> tuple[Array | None, float]:
    """The slices' shift beside their normal where it is that of a tilted gantry; None where there is none.

    Raises:
        GantryTiltError: a shift that no gantry makes, or another angle than the header names.
    """
    drift = travel @ np.array(slices[0].orientation).reshape(2, 3).T
    last = float(np.linalg.norm(drift[-1]))
    angle = math.degrees(math.atan2(last, abs(float(along[-1]))))
    if np.linalg.norm(drift, axis=1).max() <= MAX_DRIFT_MM or angle <= MAX_TILT_DEG:
        return None, 0.0
    sheared = f"the slices are sheared by {angle:.1f} degrees (gantry tilt)"
    line = np.outer(along / along[-1], drift[-1])
    if np.abs(drift - line).max() > MAX_DRIFT_MM or np.abs(drift[-1]).min() > max(MAX_DRIFT_MM, 0.02 * last):
        raise GantryTiltError(source, f"{sheared}, but not along one axis, as a gantry would.")
    if angle > MAX_STRAIGHTENED_DEG:
        raise GantryTiltError(source, f"{sheared}; up to {MAX_STRAIGHTENED_DEG:g} degrees can be straightened.")
    named = max(abs(s.claims.tilt_deg) for s in slices)
    if named and abs(named - angle) > TILT_AGREES_DEG:
        raise GantryTiltError(source, f"{sheared}; their header names {named:g} degrees.")
    return _to_correct(drift), angle


def _to_correct(drift: Array) -> Array:
    """Without what is too little to interpolate for beside the tilted axis: it stays, as an error of the corners."""
    across = int(np.abs(drift[-1]).argmin())
    if np.abs(drift[:, across]).max() <= MAX_DRIFT_MM:
        drift[:, across] = 0.0
    return drift


def _steps(source: Path, slices: Sequence[SliceHeader], along: Array) -> tuple[float, Array | None]:
    """The common step in mm; with uneven spacing the smallest step, and every slice's place."""
    steps = np.diff(along)
    base = float(np.median(steps))
    tolerance = max(STEP_TOLERANCE_MM, STEP_TOLERANCE * base)
    odd = np.flatnonzero(np.abs(steps - base) > tolerance)
    if not len(odd):
        return float(along[-1] - along[0]) / len(steps), None
    if not _is_stepwise(slices, steps):
        raise _odd_steps(source, along, steps, base, odd, tolerance)
    places = along - along[0]
    return float(places[-1] / round(places[-1] / steps.min())), places


def _is_stepwise(slices: Sequence[SliceHeader], steps: Array) -> bool:
    """Whether the spacing changes on purpose: in blocks, none of them wide, and no slice is missing between.

    That none is missing has to be shown: by instance numbers without a hole, or by slices as thick as their distance.
    """
    jumps = np.flatnonzero(np.abs(np.diff(steps)) > np.maximum(STEP_TOLERANCE_MM, STEP_TOLERANCE * steps[1:]))
    blocks = np.split(steps, jumps + 1)
    if min(len(block) for block in blocks) < MIN_BLOCK_STEPS or steps.max() > MAX_UNEVEN_STEP_MM:
        return False
    return _counts_on(slices) or _is_covered(slices, steps)


def _counts_on(slices: Sequence[SliceHeader]) -> bool:
    found = [s.claims.instance for s in slices]
    if any(number is None for number in found):
        return False
    moves = set(np.diff(np.array(found, dtype=np.int64)).tolist())
    return moves in ({1}, {-1})


def _is_covered(slices: Sequence[SliceHeader], steps: Array) -> bool:
    thick = np.array([s.claims.thickness_mm or 0.0 for s in slices])
    return bool((np.maximum(thick[1:], thick[:-1]) >= 0.95 * steps).all())


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


def claim_findings(slices: Sequence[SliceHeader], layout: Layout, count: int) -> tuple[Finding, ...]:
    """Words on what the headers say and the places contradict, or cannot prove.

    Args:
        slices: ordered, one at each place.
        layout: where they lie.
        count: images of the series that were found, those set aside included.
    """
    claims = (_named_tilt(slices, layout), _named_places(slices), _named_count(slices, count))
    return tuple(Finding(code, text) for code, text in claims if text)


def _named_tilt(slices: Sequence[SliceHeader], layout: Layout) -> tuple[str, str]:
    tilt = max(abs(s.claims.tilt_deg) for s in slices)
    if tilt < 0.5 or layout.tilt_deg or abs(_normal(slices[0])).max() < 0.9999:
        return "gantry_tilt", ""
    text = f"The header names a gantry tilt of {tilt:g} degrees, but the slices lie straight: check the geometry."
    return "gantry_tilt", text


def _named_places(slices: Sequence[SliceHeader]) -> tuple[str, str]:
    """SliceLocation counts along the table: its steps are those of the places, or of their projection."""
    given = [s.claims.location_mm for s in slices]
    if any(place is None for place in given):
        return "contradicting_header", ""
    located = np.abs(np.diff(np.array(given, dtype=np.float64)))
    positions = np.array([s.position for s in slices], dtype=np.float64)
    real = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    projected = np.abs(np.diff(positions @ _normal(slices[0])))
    off = np.minimum(np.abs(located - real), np.abs(located - projected)).max()
    if off <= max(LOCATION_TOLERANCE_MM, 2 * STEP_TOLERANCE * float(real.max())):
        return "contradicting_header", ""
    text = f"SliceLocation and ImagePositionPatient put slices up to {off:.1f} mm apart: check the geometry."
    return "contradicting_header", text


def _named_count(slices: Sequence[SliceHeader], count: int) -> tuple[str, str]:
    named = max((s.claims.images for s in slices if s.claims.images), default=count)
    # An acquisition that was reconstructed twice counts the images of both series.
    if named > count and named % count:
        text = f"The header speaks of {named} images, {count} are here: slices at the ends may be missing."
        return "slices_missing_at_end", text
    # Where the numbering of instances starts proves nothing: scanners count on through the series of a study.
    return "slices_missing_at_end", ""
