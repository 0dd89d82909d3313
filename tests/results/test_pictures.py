"""The patient's sides, millimetres, windows and colours of the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.results.pictures import (
    LETTERS,
    PLANES,
    WINDOWS,
    Look,
    Plane,
    Scene,
    apply_window,
    draw,
    find_middles,
    paint,
    picture_size,
)

RED, GREEN = (255, 0, 0), (0, 255, 0)


def scene_with(mask: np.ndarray, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Scene:
    return Scene(np.full(mask.shape, -1000, np.int16), mask, spacing_mm, find_middles(mask))


def colour_place(picture: np.ndarray, channel: int) -> tuple[float, float]:
    """Mean column and row of the pixels of a pure colour, as shares of the picture."""
    others = [c for c in range(3) if c != channel]
    rows, columns = np.nonzero((picture[..., channel] > 150) & (picture[..., others].max(axis=-1) < 80))
    return float(columns.mean() / picture.shape[1]), float(rows.mean() / picture.shape[0])


@pytest.mark.parametrize(
    ("plane", "column", "row"), [("axial", "left", "top"), ("coronal", "left", "top"), ("sagittal", "left", "top")]
)
def test_right_front_and_head_are_left_and_top(plane: Plane, column: str, row: str) -> None:
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[30:36, 30:36, 30:36] = 1  # right, front, head
    look = Look((40, 400), {1: RED}, opacity=1.0, size=200, lines=False)
    x, y = colour_place(np.asarray(draw(scene_with(mask), plane, (33, 33, 33), look)), 0)
    assert x == pytest.approx(0.175, abs=0.02)
    assert y == pytest.approx(0.175, abs=0.02)


def test_letters_name_the_sides_that_the_pictures_show() -> None:
    assert LETTERS == {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}


@pytest.mark.parametrize(("plane", "size"), [("axial", (200, 100)), ("coronal", (200, 120)), ("sagittal", (167, 200))])
def test_a_millimetre_is_equally_long_both_ways(plane: Plane, size: tuple[int, int]) -> None:
    scene = scene_with(np.zeros((100, 50, 20), np.uint8), (1.0, 1.0, 3.0))
    assert picture_size(scene, plane, 200) == size


def test_every_picture_is_a_square_of_the_size_asked_for() -> None:
    scene = scene_with(np.zeros((30, 20, 5), np.uint8), (1.0, 2.0, 8.0))
    for plane in PLANES:
        assert draw(scene, plane, (15, 10, 2), Look((40, 400), {}, size=300)).size == (300, 300)


def test_window_maps_its_ends_to_black_and_white() -> None:
    hu = np.array([-2000, -160, 40, 240, 3000], np.int16)
    assert apply_window(hu, (40, 400)).tolist() == [0, 0, 127, 255, 255]
    assert set(WINDOWS) == {"head_neck", "brain", "soft_tissue", "bone", "lung"}


def test_hidden_organs_leave_the_grey_alone() -> None:
    grey = np.full((6, 6), 100, np.uint8)
    labels = np.zeros((6, 6), np.uint8)
    labels[1:3, 1:3], labels[3:5, 3:5] = 1, 2
    picture = paint(grey, labels, Look((40, 400), {2: GREEN}, opacity=0.5))
    assert (picture[labels != 2] == 100).all()
    assert (picture[labels == 2] == [0, 255, 0]).all()  # all four pixels are outline: twice the opacity


def test_opacity_mixes_inside_and_the_outline_is_clearer() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7] = 1
    picture = paint(np.full((9, 9), 100, np.uint8), labels, Look((40, 400), {1: RED}, opacity=0.4))
    assert picture[4, 4].tolist() == [162, 60, 60]
    assert picture[2, 4].tolist() == [224, 20, 20]
    assert (paint(np.full((9, 9), 100, np.uint8), labels, Look((40, 400), {1: RED}, opacity=0.0)) == 100).all()


def test_a_drawn_label_is_never_blurred_into_another() -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[:2], mask[2:] = 1, 3
    look = Look((40, 400), {1: RED, 2: (0, 0, 255), 3: GREEN}, opacity=1.0, size=64, lines=False)
    picture = np.asarray(draw(scene_with(mask), "axial", (1, 1, 1), look)).reshape(-1, 3)
    coloured = {
        tuple(pixel) for pixel in picture.tolist() if max(pixel) == 255 and min(pixel) == 0 and sum(pixel) == 255
    }
    assert coloured == {RED, GREEN}


def test_middles_lie_in_their_organs() -> None:
    mask = np.zeros((20, 30, 40), np.uint8)
    mask[2:5, 10:21, 30:35], mask[15:18, 3, 1:4] = 4, 9
    assert find_middles(mask) == {4: (3, 15, 32), 9: (16, 3, 2)}


def test_the_middle_of_a_hollow_organ_is_a_voxel_of_it() -> None:
    """A jaw is a horseshoe: the medians of its axes lie in the mouth."""
    mask = np.zeros((21, 21, 9), np.uint8)
    mask[2:19, 2:19, 2:7] = 5
    mask[5:16, 2:16, 2:7] = 0
    x, y, z = find_middles(mask)[5]
    assert mask[x, y, z] == 5
    assert z == 4


def test_the_viewer_opens_on_an_organ_or_in_the_middle() -> None:
    mask = np.zeros((20, 20, 20), np.uint8)
    assert scene_with(mask).start == (10, 10, 10)
    mask[1:4, 1:4, 1:4], mask[9:12, 9:12, 9:12], mask[17:20, 17:20, 17:20] = 1, 2, 3
    assert scene_with(mask).start == (10, 10, 10)
    assert mask[scene_with(mask).start] == 2
