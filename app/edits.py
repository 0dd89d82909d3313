"""Strokes from the viewer: what they ask for, checked, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.drafts import CannotDraw, Change, Draft, Stroke, counts
from app.results import Result
from app.scans import Scan
from app.services import Desk
from app.studies import Refused

Place = tuple[float, float, float]


class Order(BaseModel):
    """What the viewer sends: one movement of the pen, or a word.

    Places are voxels of the canonical array, not rounded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    op: Literal["open", "paint", "erase", "fill", "undo", "redo", "discard", "save"]
    value: int = Field(0, ge=0, le=255)
    plane: Literal["axial", "coronal", "sagittal"] = "axial"
    points: Annotated[tuple[Place, ...], Field(max_length=5000)] = ()
    radius_mm: float = Field(3.0, gt=0, le=60, allow_inf_nan=False)
    ball: bool = False
    protect: bool = True


def edit(desk: Desk, study: str, visitor: str, number: int, body: bytes) -> tuple[dict[str, Any], int]:
    """Do what the viewer asks of the draft; the answer and its HTTP status."""
    try:
        order = Order.model_validate_json(body)
    except ValidationError:
        return {"reason": "edit.refused"}, 400
    scan, result = desk.scan(study, visitor), desk.result(study, visitor, number)
    draft = desk.corrections.draft(study, visitor, number)
    if scan is None or result is None or draft is None:
        return {"reason": "edit.refused"}, 404
    try:
        return _do(desk, study, visitor, number, order, scan, result, draft), 200
    except CannotDraw as refused:
        return {"reason": refused.reason}, 409
    except Refused as refused:
        return {"reason": "edit.unchanged", "message": refused.problem.message}, 409


def _do(
    desk: Desk, study: str, visitor: str, number: int, order: Order, scan: Scan, result: Result, draft: Draft
) -> dict[str, Any]:
    if order.op == "save":
        return {"run": desk.corrections.save(study, visitor, number)}
    change = _change(order, scan, result, draft)
    return {
        "voxels": 0 if change is None else len(change.places),
        "counts": {} if change is None else counts(change),
        "undo": len(draft.done),
        "redo": len(draft.undone),
        "volumes": volumes(draft, scan, result),
    }


def _change(order: Order, scan: Scan, result: Result, draft: Draft) -> Change | None:
    known = {row.value for row in result.organs}
    if order.op in ("paint", "erase", "fill") and (order.value not in known or not _finite(order.points)):
        raise CannotDraw("edit.refused")
    match order.op:
        case "paint" | "erase":
            stroke = Stroke(
                order.value, order.op == "erase", order.plane, order.points, order.radius_mm, order.ball, order.protect
            )
            return draft.draw(stroke)
        case "fill":
            return draft.fill(order.value, order.plane, _voxel(order.points[0], scan), protect=order.protect)
        case "undo":
            return draft.undo()
        case "redo":
            return draft.redo()
        case "discard":
            draft.restart(result.mask())
    return None


def _finite(points: tuple[Place, ...]) -> bool:
    return bool(points) and bool(np.isfinite(np.array(points)).all()) and float(np.abs(np.array(points)).max()) < 1e5


def _voxel(point: Place, scan: Scan) -> tuple[int, int, int]:
    x, y, z = (int(np.floor(value + 0.5)) for value in point)
    if not all(0 <= n < size for n, size in zip((x, y, z), scan.shape, strict=True)):
        raise CannotDraw("edit.refused")
    return x, y, z


def volumes(draft: Draft, scan: Scan, result: Result) -> dict[int, float]:
    """ml of every organ in the draft."""
    voxel_ml = float(abs(np.linalg.det(scan.affine[:3, :3]))) / 1000
    found = draft.sizes()
    return {row.value: round(found.get(row.value, 0) * voxel_ml, 3) for row in result.organs}
