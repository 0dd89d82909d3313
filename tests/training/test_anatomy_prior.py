"""Where organs lie: measured on planted boxes whose places are known."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.labels import LabelTable
from medseg.training.anatomy_prior import ABOVE_MM, build_anatomy
from medseg.training.cases import TrainingCase
from tests.training.conftest import LABELS

SPACING_MM = (2.0, 3.0, 5.0)
SHAPE = (30, 30, 30)
CORNERS = {1: (4, 8, 16), 2: (20, 8, 14), 3: (12, 20, 2)}
SIZES = {1: (4, 4, 4), 2: (4, 4, 2), 3: (2, 2, 24)}
HU = {1: 100, 2: -90, 3: 30}
TABLE = LabelTable.from_names(LABELS)
LEFT, RIGHT, CORD = LABELS


def planted(move: int = 0, lift: int = 0, unknown: int | None = None) -> TrainingCase:
    """Boxes; organ 2 is moved along i, everything but the cord lifted along k."""
    hu, labels = np.full(SHAPE, -1000, np.int16), np.zeros(SHAPE, np.uint8)
    for value, corner in CORNERS.items():
        start = np.array(corner) + np.array([move * (value == 2), 0, lift * (value != 3)])
        box = tuple(slice(a, a + n) for a, n in zip(start, SIZES[value], strict=True))
        labels[box], hu[box] = value, HU[value] + move
    known = np.array([value != unknown for value in range(4)])
    places = {value: np.argwhere(labels == value).astype(np.int16) for value in (1, 2, 3) if known[value]}
    return TrainingCase("x", hu, labels, known, places)


def test_offsets_ranges_and_field_are_what_was_planted() -> None:
    cases = [planted(move) for move in (-2, -1, 0, 1, 2)]
    anatomy = build_anatomy(cases, TABLE, SPACING_MM, [CORD])
    assert anatomy is not None
    assert set(anatomy.organs) == set(anatomy.field) == {LEFT, RIGHT}
    (offset,) = anatomy.offsets
    assert (offset.start, offset.end) == (LEFT, RIGHT)
    # Centres: 5.5, 9.5, 17.5 and 21.5, 9.5, 14.5 voxels of 2 x 3 x 5 mm.
    assert offset.mean_mm == (32, 0, -15)
    assert offset.sd_mm == (round(2 * np.sqrt(2), 2), 0, 0)
    assert anatomy.organs[LEFT].volume_ml == pytest.approx((1.92, 1.92, 1.92))
    assert anatomy.organs[RIGHT].volume_ml == pytest.approx((0.96, 0.96, 0.96))
    assert anatomy.organs[RIGHT].mean_hu == pytest.approx((-91.96, -90, -88.04))
    # The cord runs from slice 2 to 25; the left gland's centre is slice 17.5.
    assert anatomy.field[LEFT].below_mm == pytest.approx((17.5 - 2) * 5)
    assert anatomy.field[LEFT].above_mm == pytest.approx((25 - 17.5) * 5 + ABOVE_MM)


@pytest.mark.parametrize("lift", [-14, 12], ids=["bottom", "top"])
def test_organs_cut_by_the_edge_count_for_nothing(lift: int) -> None:
    cases = [planted() for _ in range(5)]
    cut = planted(move=5, lift=lift)
    assert cut.labels[:, :, 0 if lift < 0 else -1].any()
    assert build_anatomy([*cases, cut, cut], TABLE, SPACING_MM, [CORD]).offsets[0].sd_mm == (0, 0, 0)


def test_organs_that_were_not_contoured_count_for_nothing() -> None:
    cases = [planted() for _ in range(5)] + [planted(move=5, unknown=2)]
    assert build_anatomy(cases, TABLE, SPACING_MM, [CORD]).offsets[0].sd_mm == (0, 0, 0)


def test_too_few_references_are_no_anatomy() -> None:
    """A check against nothing would reject every finding."""
    assert build_anatomy([planted() for _ in range(4)], TABLE, SPACING_MM, [CORD]) is None


def test_one_landmark_alone_is_no_anatomy() -> None:
    assert build_anatomy([planted() for _ in range(6)], TABLE, SPACING_MM, [CORD, RIGHT]) is None


def test_pairs_that_are_seldom_seen_together_have_no_offset() -> None:
    cases = [planted(unknown=1) for _ in range(5)] + [planted(unknown=2) for _ in range(5)] + [planted()] * 4
    anatomy = build_anatomy(cases, TABLE, SPACING_MM, [])
    assert {(offset.start, offset.end) for offset in anatomy.offsets} == {(LEFT, CORD), (RIGHT, CORD)}
