"""Two results side by side: how much of each organ came and went, and where.

Results of one scan lie on one grid and are compared voxel by voxel. A prior scan is another grid and another
day: it is brought onto this one by the centres of the organs that both show whole, turned and shifted as a rigid
body, and the comparison says how well that fits. It is no registration of the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from app.results import Result, read_result
from app.scans import Scan, read_scan
from medseg.imaging.emit import emit_json
from medseg.imaging.volume import Array
from medseg.jobs.request import JobRequest
from medseg.runtime.progress import Progress, ProgressCallback

FILE, DIFFERENCE = "comparison.json", "difference.npy"
GONE, NEW, OTHER = 1, 2, 3
"""Values of the difference map: an organ's voxel of the other result only, of this one only, of another organ."""


@dataclass(frozen=True)
class Alignment:
    """From this scan's places to the other's (RAS mm), and how well it fits.

    Attributes:
        matrix: 4x4.
        kind: 'same grid', 'rigid', 'shift' or 'none'.
        residual_mm: root mean square distance of the organs' centres after it.
    """

    matrix: Array
    kind: str
    residual_mm: float = 0.0


def compare(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Compare the result `extra["result"]` of `extra["scan"]` with `extra["other_result"]` of `extra["other_scan"]`."""
    scan, other_scan = _scan(request.extra["scan"]), _scan(request.extra["other_scan"])
    result, other = (read_result(Path(request.extra[name])) for name in ("result", "other_result"))
    alignment = align(scan, result, other_scan, other)
    progress(Progress("measure", 0.3, "Comparing"))
    theirs = brought_here(other.mask(), other_scan, scan, alignment)
    values = {row.name: row.value for row in result.organs}
    shared = {row.value: values[row.name] for row in other.organs if row.name in values}
    here, there = _renamed(result.mask(), {value: value for value in shared.values()}), _renamed(theirs, shared)
    np.save(request.out / DIFFERENCE, difference_map(here, there))
    rows = [
        {"name": row.name, "dice": _dice(here, there, row.value)}
        for row in result.organs
        if row.value in shared.values()
    ]
    facts = {"matrix": alignment.matrix.tolist(), "kind": alignment.kind, "residual_mm": alignment.residual_mm}
    emit_json(request.out / FILE, facts | {"organs": rows})
    return {}


def _scan(folder: str) -> Scan:
    scan = read_scan(Path(folder))
    assert scan is not None
    return scan


def _renamed(mask: Array, values: dict[int, int]) -> Array:
    """The mask with other values; organs that are not named are left out."""
    table = np.zeros(256, np.uint8)
    table[list(values)] = list(values.values())
    return table[mask]


def difference_map(here: Array, there: Array) -> Array:
    """Where two masks of the same values differ, and how."""
    difference = np.zeros(here.shape, np.uint8, order="F")
    difference[(here == 0) & (there > 0)] = GONE
    difference[(here > 0) & (there == 0)] = NEW
    difference[(here > 0) & (there > 0) & (here != there)] = OTHER
    return difference


def _dice(here: Array, there: Array, value: int) -> float | None:
    mine, theirs = here == value, there == value
    total = int(mine.sum()) + int(theirs.sum())
    return None if total == 0 else round(2 * int((mine & theirs).sum()) / total, 4)


def align(scan: Scan, result: Result, other_scan: Scan, other: Result) -> Alignment:
    """How to get from this scan's places to the other's."""
    same = scan.shape == other_scan.shape and np.allclose(scan.affine, other_scan.affine, atol=1e-3)
    if same and scan.facts["sha256"] == other_scan.facts["sha256"]:
        return Alignment(np.eye(4), "same grid")
    here, there = _centres(scan, result), _centres(other_scan, other)
    shared = sorted(here.keys() & there.keys())
    if not shared:
        return Alignment(np.eye(4), "none")
    return _fit(np.array([here[name] for name in shared]), np.array([there[name] for name in shared]))


def _centres(scan: Scan, result: Result) -> dict[str, Array]:
    """RAS mm of the centre of every organ that the scan shows whole."""
    whole = {row.value: row.name for row in result.organs if row.volume_ml > 0 and not row.touches_edge}
    if not whole:
        return {}
    mask, values = np.asarray(result.mask()), list(whole)
    boxes = ndimage.find_objects(mask, max_label=max(values))
    found = {}
    for value in values:
        box = boxes[value - 1]
        inside = np.argwhere(mask[box] == value).mean(axis=0) + [side.start for side in box]
        found[whole[value]] = (scan.affine @ [*inside, 1.0])[:3]
    return found


def _fit(here: Array, there: Array) -> Alignment:
    """Turn and shift where four centres or more fix them, else the shift alone."""
    turn, kind = np.eye(3), "shift"
    middle_here, middle_there = here.mean(axis=0), there.mean(axis=0)
    if len(here) >= 4:
        u, _, v = np.linalg.svd((here - middle_here).T @ (there - middle_there))
        mirror = np.sign(np.linalg.det(v.T @ u.T))
        turn, kind = v.T @ np.diag([1, 1, mirror]) @ u.T, "rigid"
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, middle_there - turn @ middle_here
    off = here @ turn.T + matrix[:3, 3] - there
    return Alignment(matrix, kind, round(float(np.sqrt((off**2).sum(axis=1).mean())), 2))


def brought_here(mask: Array, source: Scan, target: Scan, alignment: Alignment) -> Array:
    """The other scan's mask on this scan's grid; a label is never mixed with another."""
    if alignment.kind == "same grid":
        return np.asarray(mask)
    step = np.linalg.inv(source.affine) @ alignment.matrix @ target.affine
    out = np.zeros(target.shape, np.uint8, order="F")
    plane = np.stack(np.meshgrid(*[np.arange(n) for n in target.shape[:2]], indexing="ij")).reshape(2, -1)
    limits = np.array(source.shape)[:, None]
    for k in range(target.shape[2]):
        places = step[:3, :2] @ plane + step[:3, 2:3] * k + step[:3, 3:4]
        index = np.floor(places + 0.5).astype(np.int64)
        inside = ((index >= 0) & (index < limits)).all(axis=0)
        picture = np.zeros(plane.shape[1], np.uint8)
        picture[inside] = mask[tuple(index[:, inside])]
        out[:, :, k] = picture.reshape(target.shape[:2])
    return out
