"""Strokes on a mask: which voxels they touch, what they leave alone, and the way back."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.drafts import MAX_STEPS, CannotDraw, Draft, Stroke, counts, touched

SHAPE, SPACING = (24, 20, 16), (1.0, 1.5, 2.0)
BOX = (slice(4, 12), slice(4, 12), slice(4, 12))


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    mask = np.zeros(SHAPE, np.uint8, order="F")
    mask[BOX] = 1
    np.save(tmp_path / "mask.npy", mask)
    return Draft.open(tmp_path / "drafts" / "1.npy", tmp_path / "mask.npy", SPACING)


def stroke(*points: tuple[float, float, float], value: int = 2, **others: object) -> Stroke:
    return Stroke(**{"value": value, "erase": False, "plane": "axial", "points": points, "radius_mm": 3.0} | others)  # type: ignore[arg-type]


def within(start: tuple[float, ...], end: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    """Voxels whose centres lie within a radius of a line, by another way than the draft's: many points along it."""
    places = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1) * np.array(SPACING)
    found = np.zeros(SHAPE, bool)
    for share in np.linspace(0, 1, 400):
        point = (np.array(start) * (1 - share) + np.array(end) * share) * np.array(SPACING)
        found |= ((places - point) ** 2).sum(axis=-1) <= radius**2
    return found


def test_a_disc_touches_its_slice_and_a_ball_the_slices_around_it(draft: Draft) -> None:
    draft.draw(stroke((18, 14, 7.2)))
    flat = draft.mask() == 2
    assert sorted(set(np.argwhere(flat)[:, 2].tolist())) == [7]
    assert (flat == (within((18, 14, 7), (18, 14, 7), 3.0) & (np.arange(16) == 7))).all()
    draft.draw(stroke((18, 14, 7.2), ball=True))
    assert ((draft.mask() == 2) == (flat | within((18, 14, 7.2), (18, 14, 7.2), 3.0))).all()


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_a_line_is_drawn_in_the_plane_of_its_first_point(draft: Draft, plane: str, axis: int) -> None:
    start, end = [17.0, 15.0, 9.0], [20.0, 13.0, 11.0]
    draft.draw(stroke(tuple(start), tuple(end), plane=plane))  # type: ignore[arg-type]
    end[axis] = start[axis]
    wanted = within(tuple(start), tuple(end), 3.0)
    keep = np.zeros(SHAPE, bool)
    keep[tuple(slice(None) if a != axis else int(start[axis]) for a in range(3))] = True
    assert ((draft.mask() == 2) == (wanted & keep & (draft.mask() != 1))).all()


def test_other_organs_are_kept_unless_told_otherwise(draft: Draft) -> None:
    through = ((2.0, 8.0, 8.0), (20.0, 8.0, 8.0))
    draft.draw(stroke(*through))
    assert (draft.mask()[BOX] == 1).all()
    draft.draw(stroke(*through, protect=False))
    assert (draft.mask()[2:21, 8, 8] == 2).all()


def test_the_eraser_takes_one_organ_alone(draft: Draft) -> None:
    draft.draw(stroke((15, 8, 8)))
    draft.draw(stroke((12, 8, 8), value=1, erase=True, radius_mm=4.0))
    assert (draft.mask() == 2).any()
    assert not (draft.mask()[BOX][-3:, 4, 4] == 1).any()


def test_filling_stops_at_the_outline_and_refuses_an_open_one(draft: Draft) -> None:
    mask = draft.mask("r+")
    mask[15:21, 5:15, 3] = 2
    mask[16:20, 6:14, 3] = 0
    draft.fill(2, "axial", (17, 9, 3))
    assert (draft.mask()[15:21, 5:15, 3] == 2).all()
    assert (draft.mask()[..., [2, 4]] != 2).all()
    with pytest.raises(CannotDraw, match="not_enclosed"):
        draft.fill(2, "axial", (0, 0, 3))
    with pytest.raises(CannotDraw, match="nothing_to_fill"):
        draft.fill(2, "axial", (17, 9, 3))
    with pytest.raises(CannotDraw, match="nothing_to_fill"):
        draft.fill(2, "axial", (5, 5, 5))  # another organ, which is kept
    draft.fill(2, "axial", (5, 5, 5), protect=False)
    assert (draft.mask()[4:12, 4:12, 5] == 2).all()


def test_undo_and_redo_lead_to_the_same_voxels(draft: Draft) -> None:
    states = [np.array(draft.mask())]
    for x in (14.0, 16.0, 18.0):
        draft.draw(stroke((x, 14, 7)))
        states.append(np.array(draft.mask()))
    for state in reversed(states[:-1]):
        draft.undo()
        assert (draft.mask() == state).all()
    assert draft.undo() is None
    for state in states[1:]:
        draft.redo()
        assert (draft.mask() == state).all()
    assert draft.redo() is None


def test_a_new_stroke_forgets_what_was_undone(draft: Draft) -> None:
    draft.draw(stroke((14, 14, 7)))
    draft.undo()
    draft.draw(stroke((20, 14, 7)))
    assert draft.redo() is None


def test_steps_are_remembered_up_to_a_limit(draft: Draft) -> None:
    for number in range(MAX_STEPS + 5):
        draft.draw(stroke((20, 14, 7), value=2 + number % 2, protect=False))
    assert len(draft.done) == MAX_STEPS


def test_a_draft_outlives_whoever_opened_it(draft: Draft) -> None:
    draft.draw(stroke((20, 14, 7)))
    again = Draft.open(draft.path, draft.path.with_name("no mask"), SPACING)
    assert (again.mask() == draft.mask()).all()
    draft.restart(np.zeros(SHAPE, np.uint8))
    assert not again.mask().any()


def counted(draft: Draft) -> dict[int, int]:
    values, voxels = np.unique(draft.mask(), return_counts=True)
    return {value: count for value, count in zip(values.tolist(), voxels.tolist(), strict=True) if value}


def test_sizes_and_counts_are_those_of_the_mask(draft: Draft) -> None:
    change = draft.draw(stroke((8, 8, 8), protect=False))
    assert draft.sizes() == counted(draft)
    assert counts(change) == {2: draft.sizes()[2], 1: draft.sizes()[1] - 8**3}


def test_sizes_keep_up_with_every_change(draft: Draft) -> None:
    assert draft.sizes() == {1: 8**3}
    steps: list[Callable[[], object]] = [
        lambda: draft.draw(stroke((8, 8, 8), value=3, ball=True, radius_mm=8.5, protect=False)),
        lambda: draft.fill(2, "axial", (8, 8, 4), protect=False),
        draft.undo,
        draft.undo,
        draft.redo,
        lambda: draft.draw(stroke((8, 8, 8), value=3, erase=True)),
        lambda: draft.restart(np.full(SHAPE, 5, np.uint8)),
        lambda: draft.draw(stroke((8, 8, 8), protect=False)),
    ]
    for step in steps:
        revision = draft.revision
        step()
        assert draft.revision > revision
        assert draft.sizes() == counted(draft)


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_counting_a_large_mask_takes_no_copy_of_it(tmp_path: Path) -> None:
    mask = np.ones((256, 256, 64), np.uint8, order="F")
    np.save(tmp_path / "mask.npy", mask)
    draft = Draft.open(tmp_path / "1.npy", tmp_path / "mask.npy", SPACING)
    assert peak_of(draft.sizes) < mask.nbytes / 2
    assert peak_of(lambda: draft.touched_organs(mask + 1)) < 2 * mask.nbytes


def test_a_long_stroke_is_computed_piece_by_piece() -> None:
    corners = ((10.0, 10.0, 20.0), (240.0, 10.0, 20.0), (240.0, 240.0, 20.0), (10.0, 240.0, 20.0))
    shape, pen = (256, 256, 40), stroke(*corners, ball=True, radius_mm=12.0)
    assert peak_of(lambda: touched(shape, SPACING, pen)) < 8 * np.prod(shape)


@pytest.mark.parametrize("ball", [True, False])
def test_a_bent_stroke_is_the_union_of_its_pieces(draft: Draft, ball: bool) -> None:
    corners = ((-3.0, 2.0, 9.0), (15.0, 3.5, 11.0), (15.0, 18.0, 2.0), (60.0, 18.0, 2.0), (22.0, 9.0, 9.0))
    flat = tuple((x, y, 9.0) for x, y, _ in corners)
    wanted = np.zeros(SHAPE, bool)
    for start, end in pairwise(corners if ball else flat):
        box, inside = touched(SHAPE, SPACING, stroke(start, end, ball=ball))
        wanted[box] |= inside
    draft.draw(stroke(*corners, ball=ball, protect=False))
    assert ((draft.mask() == 2) == wanted).all()


def test_a_stroke_beyond_the_scan_changes_what_lies_within(draft: Draft) -> None:
    draft.draw(stroke((-2, 1, 1), (-30, 1, 1), radius_mm=4.0))
    assert ((draft.mask() == 2) == within((-2, 1, 1), (-30, 1, 1), 4.0) & (np.arange(16) == 1)).all()
    assert draft.touched_organs(np.zeros(SHAPE, np.uint8)) == [1, 2]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("ball", [True, False])
@pytest.mark.parametrize("where", [-40.0, -7.0, 90.0])
def test_a_stroke_wholly_outside_changes_nothing(draft: Draft, where: float, ball: bool, plane: str) -> None:
    before = np.array(draft.mask())
    for axis in range(3):
        point = tuple(where if a == axis else 5.0 for a in range(3))
        assert not len(draft.draw(stroke(point, ball=ball, plane=plane)).places)  # type: ignore[arg-type]
    assert (draft.mask() == before).all()
    assert draft.done == []


@pytest.mark.parametrize(
    "wrong", [{"radius_mm": 61.0}, {"radius_mm": 0.0}, {"points": ()}, {"points": ((0, 0, 0),) * 5001}]
)
def test_what_no_hand_can_do_is_refused(draft: Draft, wrong: dict[str, object]) -> None:
    with pytest.raises(CannotDraw):
        draft.draw(stroke((1, 1, 1), **wrong))
