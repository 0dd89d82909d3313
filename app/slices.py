"""Slices drawn on the server, for browsers that cannot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from app.results import Result
from app.scans import Scan
from medseg.results.pictures import AXIS, PLANES, Look, Scene, draw, to_png

MAX_SIDE = 1200


def slice_png(scan: Scan, result: Result | None, asked: Mapping[str, str]) -> bytes:
    """One slice as PNG.

    Args:
        scan: what to draw.
        result: whose organs to draw over it.
        asked: plane, index, low and high (HU), opacity (0 ... 1), hide (values, by commas), side (pixels).

    Raises:
        KeyError, ValueError: something asked for is missing or is no number.
    """
    plane = next(plane for plane in PLANES if plane == asked["plane"]) if asked["plane"] in PLANES else None
    if plane is None:
        raise ValueError(asked["plane"])
    middle = [size // 2 for size in scan.shape]
    middle[AXIS[plane]] = min(max(int(asked["index"]), 0), scan.shape[AXIS[plane]] - 1)
    low, high, opacity = float(asked["low"]), float(asked["high"]), float(asked.get("opacity", "0.45"))
    if not np.isfinite([low, high, opacity]).all():
        raise ValueError((low, high, opacity))
    hidden = {int(value) for value in asked.get("hide", "").split(",") if value}
    shown = {row.value: row.colour for row in result.organs if row.value not in hidden} if result else {}
    side = min(int(asked.get("side", "600")), MAX_SIDE)
    look = Look(((low + high) / 2, max(high - low, 1.0)), shown, opacity, side, lines=False)
    mask = result.mask() if result else np.broadcast_to(np.uint8(0), scan.shape)
    scene = Scene(scan.hu(), mask, scan.spacing_mm, {})
    return to_png(draw(scene, plane, (middle[0], middle[1], middle[2]), look))
