"""A mask that is being corrected: strokes on the full-resolution voxels, with undo. Knows arrays, nothing else.

The viewer shows every stroke at once by the same rule; what counts is what is done here. A draft lies in a
file, so that a reload or a lost connection loses no stroke.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
Plane = Literal["axial", "coronal", "sagittal"]
AXIS: dict[str, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
MAX_STEPS = 100
MAX_POINTS = 5000
MAX_RADIUS_MM = 60.0
_VALUES = 256
_AT_ONCE = 1 << 18  # voxels: what is computed for them fits into a processor's cache
_CROSS = ndimage.generate_binary_structure(2, 1)


class CannotDraw(Exception):  # noqa: N818 - an answer, not a fault
    """The stroke is refused; `reason` is a key of the page's words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Stroke:
    """One movement of the pen.

    Attributes:
        value: the organ that is drawn or taken away.
        erase: takes the organ away instead of drawing it.
        plane: in which the pen moved.
        points: places (x, y, z) in voxels, not rounded.
        radius_mm: of the pen.
        ball: the pen is a ball, not a disc in the plane.
        protect: other organs are left alone.
    """

    value: int
    erase: bool
    plane: Plane
    points: tuple[tuple[float, float, float], ...]
    radius_mm: float
    ball: bool = False
    protect: bool = True


@dataclass(frozen=True)
class Change:
    """Voxels (flat, first axis fastest), what they were, what they became."""

    places: NDArray[np.int64]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]


@dataclass
class Draft:
    """A mask under correction.

    Args:
        path: of the draft; a copy of the mask where it is new.
        spacing_mm: along the axes of the mask.
        revision: changes whenever the mask does.
    """

    path: Path
    spacing_mm: tuple[float, float, float]
    revision: int = 0
    done: list[Change] = field(default_factory=list)
    undone: list[Change] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _sizes: dict[int, int] | None = None

    @classmethod
    def open(cls, path: Path, mask: Path, spacing_mm: tuple[float, float, float]) -> Draft:
        """The draft of a mask, begun with a copy of it."""
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(mask, path)
        return cls(path, spacing_mm)

    def mask(self, mode: Literal["r", "r+"] = "r") -> Array:
        """uint8 [x, y, z], mapped from the file."""
        mask: Array = np.load(self.path, mmap_mode=mode)
        return mask

    def draw(self, stroke: Stroke) -> Change:
        """Apply a stroke.

        Raises:
            CannotDraw: more points or a larger pen than a person can move.
        """
        if len(stroke.points) > MAX_POINTS or not 0 < stroke.radius_mm <= MAX_RADIUS_MM or not stroke.points:
            raise CannotDraw("edit.refused")
        with self.lock:
            mask = self.mask("r+")
            box, inside = touched(mask.shape, self.spacing_mm, stroke)
            return self._apply(mask, box, inside & _free(mask[box], stroke), 0 if stroke.erase else stroke.value)

    def fill(self, value: int, plane: Plane, point: tuple[int, int, int], *, protect: bool = True) -> Change:
        """Fill the region around a voxel, in its plane, up to where the value changes.

        Raises:
            CannotDraw: the region reaches the edge of the picture: nothing encloses it.
        """
        axis = AXIS[plane]
        with self.lock:
            mask = self.mask("r+")
            cut = tuple(slice(point[a], point[a] + 1) if a == axis else slice(None) for a in range(3))
            flat = np.asarray(mask[cut]).squeeze(axis)
            seed = tuple(point[a] for a in range(3) if a != axis)
            old = int(flat[seed])
            if old == value or (protect and old != 0):
                raise CannotDraw("edit.nothing_to_fill")
            region, _ = ndimage.label(flat == old, structure=_CROSS)
            inside = region == region[seed]
            if inside[[0, -1]].any() or inside[:, [0, -1]].any():
                raise CannotDraw("edit.not_enclosed")
            return self._apply(mask, cut, np.expand_dims(inside, axis), value)

    def _apply(self, mask: Array, box: tuple[slice, ...], inside: Array, value: int) -> Change:
        part = mask[box]
        inside = inside & (part != value)
        places = np.argwhere(inside) + [side.start or 0 for side in box]
        flat = np.ravel_multi_index(tuple(places.T), mask.shape, order="F").astype(np.int64)
        change = Change(flat, part[inside].astype(np.uint8), np.full(len(flat), value, np.uint8))
        if len(flat):
            part[inside] = value
            self._changed(mask, counts(change), 1)
            self.done = [*self.done[-MAX_STEPS + 1 :], change]
            self.undone = []
        return change

    def _changed(self, mask: Array, more: dict[int, int], sign: int) -> None:
        _flush(mask)
        self.revision += 1
        if self._sizes is not None:
            for value, voxels in more.items():
                self._sizes[value] = self._sizes.get(value, 0) + sign * voxels

    def undo(self) -> Change | None:
        """Take the last stroke back; None where there is none."""
        return self._step(self.done, self.undone, back=True)

    def redo(self) -> Change | None:
        """Do again what was taken back last."""
        return self._step(self.undone, self.done, back=False)

    def _step(self, source: list[Change], target: list[Change], *, back: bool) -> Change | None:
        with self.lock:
            if not source:
                return None
            change = source.pop()
            target.append(change)
            mask = self.mask("r+")
            places = np.unravel_index(change.places, mask.shape, order="F")
            mask[places] = change.before if back else change.after
            self._changed(mask, counts(change), -1 if back else 1)
            return change

    def restart(self, original: Array) -> None:
        """Begin again with the mask as it was."""
        with self.lock:
            mask = self.mask("r+")
            mask[...] = original
            self._sizes = None
            self._changed(mask, {}, 1)
            self.done, self.undone = [], []

    def copy_to(self, path: Path) -> int:
        """Copy the mask as it is now; the revision that this is."""
        with self.lock:
            shutil.copyfile(self.path, path)
            return self.revision

    def sizes(self) -> dict[int, int]:
        """Voxels of every organ; counted once, and from then on with every change."""
        with self.lock:
            if self._sizes is None:
                self._sizes = sizes_of(self.mask())
            return {value: voxels for value, voxels in self._sizes.items() if voxels}

    def touched_organs(self, original: Array) -> list[int]:
        """Values whose voxels are not those of the original."""
        mask, found = self.mask(), {0}
        for k in range(mask.shape[2]):
            differs = mask[:, :, k] != original[:, :, k]
            found.update(np.unique([mask[:, :, k][differs], original[:, :, k][differs]]).tolist())
        return sorted(found - {0})


def sizes_of(mask: Array) -> dict[int, int]:
    """Voxels of every value but 0."""
    found = np.zeros(_VALUES, np.int64)
    for k in range(mask.shape[2]):  # the whole at once would be counted in a copy of eight bytes a voxel
        found += np.bincount(mask[:, :, k].ravel(order="K"), minlength=_VALUES)
    return {value: int(found[value]) for value in np.flatnonzero(found).tolist() if value}


def _flush(mask: Array) -> None:
    if isinstance(mask, np.memmap):
        mask.flush()


def _free(part: Array, stroke: Stroke) -> Array:
    """Where the stroke may change something."""
    if stroke.erase:
        return np.asarray(part == stroke.value)
    return np.asarray(part == 0) if stroke.protect else np.ones(part.shape, bool)


def touched(
    shape: Sequence[int], spacing_mm: tuple[float, float, float], stroke: Stroke
) -> tuple[tuple[slice, ...], Array]:
    """The box around a stroke and, in it, the voxels whose centres lie within the pen's radius of its line."""
    points, spacing = np.array(stroke.points, dtype=np.float64), np.array(spacing_mm)
    reach = np.ceil(stroke.radius_mm / spacing).astype(int) + 1
    if not stroke.ball:
        axis = AXIS[stroke.plane]
        points[:, axis], reach[axis] = np.floor(points[0, axis] + 0.5), 0
    whole = _around(points, reach, shape)
    inside = np.zeros([side.stop - side.start for side in whole], bool)
    ends = points[1:] if len(points) > 1 else points
    for piece in np.stack([points[: len(ends)], ends], axis=1):
        box = _around(piece, reach, shape)
        part = inside[tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, whole, strict=True))]
        _mark(part, box, piece * spacing, spacing, stroke.radius_mm)
    return whole, inside


def _around(points: Array, reach: Array, shape: Sequence[int]) -> tuple[slice, ...]:
    """The box within the scan that a pen of that reach (voxels) can touch at these points; it may be empty."""
    low = np.clip(np.floor(points.min(axis=0)) - reach, 0, shape).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + reach + 1, 0, shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _mark(part: Array, box: tuple[slice, ...], piece: Array, spacing: Array, radius: float) -> None:
    """Set what lies within the radius of a straight piece (two ends, mm); `part` are the voxels of the box."""
    x, y, z = (np.arange(s.start, s.stop) * mm - at for s, mm, at in zip(box, spacing, piece[0], strict=True))
    step = max(1, _AT_ONCE // max(1, len(x) * len(y)))
    for k in range(0, len(z), step):
        part[:, :, k : k + step] |= _near_line(np.ix_(x, y, z[k : k + step]), piece[1] - piece[0], radius)


def _near_line(off: Sequence[Array], along: Array, radius: float) -> Array:
    """Whether places (x, y, z; mm from the start of a line) lie within its radius; the viewer computes the same."""
    length = float(along @ along)
    share: Any = 0.0
    if length > 0:
        share = np.clip((off[0] * along[0] + off[1] * along[1] + off[2] * along[2]) / length, 0, 1)
    away = sum((place - share * way) ** 2 for place, way in zip(off, along, strict=True))
    return np.asarray(away <= radius * radius)


def counts(change: Change) -> dict[int, int]:
    """Voxels won (positive) and lost per organ."""
    won, lost = (np.bincount(values, minlength=_VALUES) for values in (change.after, change.before))
    values = {*np.flatnonzero(won).tolist(), *np.flatnonzero(lost).tolist()} - {0}
    return {value: int(won[value] - lost[value]) for value in values}
