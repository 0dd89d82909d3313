"""A slice of a mask as closed polygons, holes joined to their outside by a keyhole.

The lines run half-way between the centres of voxels inside and outside, so that whoever fills them gets
the same voxels back. A hole is cut in by a channel of no width (DICOM PS3.3 C.8.8.6.3), which readers
understand whether they take a second contour for a hole or not.
"""

from __future__ import annotations

from itertools import pairwise

import contourpy
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from medseg.imaging.volume import Array

Polygon = NDArray[np.float64]


def polygons(mask: Array) -> list[Polygon]:
    """Points (i, j) in voxels of the regions of a mask [i, j], each a polygon closed by itself."""
    if not mask.any():
        return []
    box = tuple(slice(int(side.min()), int(side.max()) + 1) for side in np.nonzero(mask))
    padded = np.pad(mask[box].astype(np.float64), 1)
    # contourpy's x runs along columns, its y along rows: columns are j here.
    lines = contourpy.contour_generator(z=padded, fill_type=contourpy.FillType.OuterOffset).filled(0.5, np.inf)
    corner = np.array([box[0].start - 1, box[1].start - 1], dtype=np.float64)
    found = []
    for points, offsets in zip(*lines, strict=True):
        rings = [_straightened(points[a : b - 1, ::-1]) for a, b in pairwise(offsets)]
        found.append(with_keyholes(rings[0], rings[1:]) + corner)
    return found


def _straightened(ring: Polygon) -> Polygon:
    """Without the points that lie on the line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    return ring[turns] if turns.sum() >= 3 else ring


def with_keyholes(outer: Polygon, holes: list[Polygon]) -> Polygon:
    """One polygon of an outline and its holes, each cut in from the nearest point of the outline."""
    if not holes:
        return outer
    tree = KDTree(outer)
    entries: dict[int, list[Polygon]] = {}
    for hole in holes:
        distances, places = tree.query(hole)
        b = int(distances.argmin())
        entries.setdefault(int(places[b]), []).append(np.concatenate([hole[b:], hole[: b + 1]]))
    parts = []
    for a, point in enumerate(outer):
        parts.append(point[None])
        for loop in entries.get(a, []):
            parts += [loop, point[None]]
    return np.concatenate(parts)
