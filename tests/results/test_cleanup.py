"""Small islands go, halves stay, other organs are not touched."""

from __future__ import annotations

import numpy as np

from medseg.imaging.volume import Geometry
from medseg.labels import LabelTable
from medseg.preprocess.restore import LabelMap
from medseg.results.cleanup import remove_islands

LABELS = LabelTable.from_names({"spinal_cord": 1, "mandible": 2, "larynx": 3})


def label_map(mask: np.ndarray) -> LabelMap:
    return LabelMap(mask, np.where(mask > 0, 200, 0).astype(np.uint8), Geometry(mask.shape, np.eye(4)))


def test_parts_smaller_than_a_quarter_of_the_largest_go() -> None:
    mask = np.zeros((20, 10, 10), np.uint8)
    mask[0:4, 0:5, 0:5] = 1  # 100 voxels
    mask[6:7, 0:5, 0:5] = 1  # 25: a quarter stays
    mask[9:10, 0:4, 0:6] = 1  # 24: an island
    mask[12:14] = 2
    before = mask.copy()
    cleaned = remove_islands(label_map(mask), LABELS)
    expected = before.copy()
    expected[9:10] = 0
    np.testing.assert_array_equal(cleaned.labels, expected)
    np.testing.assert_array_equal(cleaned.confidence, np.where(expected > 0, 200, 0))
    np.testing.assert_array_equal(mask, before)  # the given map is left alone


def test_voxels_that_touch_by_a_corner_are_one_part() -> None:
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[:3, :3, :3], mask[3, 3, 3] = 1, 1
    np.testing.assert_array_equal(remove_islands(label_map(mask), LABELS).labels, mask)


def test_an_island_of_one_organ_inside_another_leaves_the_other_whole() -> None:
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[1:9, 1:9, 1:9] = 2
    mask[4, 4, 4] = 1
    mask[10:12, 0:6, 0:6] = 1
    cleaned = remove_islands(label_map(mask), LABELS).labels
    assert cleaned[4, 4, 4] == 0
    assert (cleaned == 2).sum() == 8**3 - 1
    assert (cleaned == 1).sum() == 72


def test_an_empty_mask_stays_empty() -> None:
    assert not remove_islands(label_map(np.zeros((3, 3, 3), np.uint8)), LABELS).labels.any()


def test_a_stricter_share_can_be_asked_for() -> None:
    mask = np.zeros((9, 2, 2), np.uint8)
    mask[0:4], mask[6:9] = 3, 3
    assert (remove_islands(label_map(mask), LABELS, keep_share=0.8).labels == 3).sum() == 16
