"""The picture: as radiologists look at it, with the organs where they are and a legend that is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.imaging.volume import Volume, reorient
from medseg.labels import LabelTable
from medseg.preprocess.restore import LabelMap
from medseg.results.measure import measure
from medseg.results.preview import OPACITY, blend, busiest_slices, plane, write_preview
from tests.phantoms import orient, phantom_labels, phantom_volume

LABELS = LabelTable.from_names({"parotid_gland_left": 1, "parotid_gland_right": 2, "mandible": 3})


def picture(path: Path, orientation: str = "LPS") -> np.ndarray:
    volume = phantom_volume((40, 34, 30), (4.0, 4.0, 4.5), orientation=orientation, noise_hu=0.0)
    mask = phantom_labels(volume)
    rows = measure(LabelMap(mask, mask, volume.geometry), volume, LABELS)
    write_preview(path, volume, mask, LABELS, rows)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1350, 540)
        return np.asarray(image.convert("RGB")).astype(int)


def where(image: np.ndarray, name: str) -> np.ndarray:
    """Pixels (row, column) tinted in an organ's colour: its hue over grey."""
    colour = np.array(LABELS[name].colour)
    rest = image - OPACITY * colour
    tinted = (rest.max(axis=2) - rest.min(axis=2) <= 4) & (np.ptp(image, axis=2) > 20)
    return np.argwhere(tinted)


@pytest.fixture(scope="module")
def lps(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return picture(tmp_path_factory.mktemp("preview") / "preview.png")


def test_the_patients_left_organ_is_on_the_right_of_axial_and_coronal(lps: np.ndarray) -> None:
    left, right = where(lps, "parotid_gland_left"), where(lps, "parotid_gland_right")
    for first, last in ((0, 450), (450, 900)):
        columns = [side[(side[:, 1] >= first) & (side[:, 1] < last), 1] for side in (left, right)]
        assert min(map(len, columns)) > 100
        assert columns[0].mean() > (first + last) / 2 + 20
        assert columns[1].mean() < (first + last) / 2 - 20


def test_the_back_is_below_in_axial(lps: np.ndarray) -> None:
    rod, organ = where(lps, "mandible"), where(lps, "parotid_gland_left")
    assert rod[rod[:, 1] < 450, 0].mean() > organ[organ[:, 1] < 450, 0].mean() + 30


def test_the_legend_names_every_organ_by_its_colour(lps: np.ndarray) -> None:
    below = lps[440:]
    for label in LABELS:
        assert (np.abs(below - np.array(label.colour)).max(axis=2) <= 2).sum() > 50


def test_other_orientations_look_the_same(tmp_path: Path, lps: np.ndarray) -> None:
    other = picture(tmp_path / "preview.png", "SAR")
    assert (np.abs(other - lps).max(axis=2) > 8).mean() < 1e-3


def test_without_organs_the_middle_is_shown(tmp_path: Path) -> None:
    volume = phantom_volume((20, 20, 20), noise_hu=0.0)
    empty = np.zeros(volume.geometry.shape, np.uint8)
    assert busiest_slices(empty) == (10, 10, 10)
    write_preview(tmp_path / "p.png", volume, empty, LABELS, ())
    assert (tmp_path / "p.png").stat().st_size > 5000


def test_the_slice_with_most_organs_is_shown() -> None:
    organs = np.zeros((9, 9, 9), np.uint8)
    organs[1, 0:5, 7] = 1
    organs[6, 3, 7] = 2
    organs[6, 3, 2] = 2
    assert busiest_slices(organs) == (1, 3, 7)


def test_planes_are_turned_the_radiological_way() -> None:
    index = np.moveaxis(np.indices((3, 4, 5)), 0, -1)  # every voxel holds its own index
    cuts = {axis: np.stack([plane(index[..., part], axis, 1) for part in range(3)], -1) for axis in range(3)}
    np.testing.assert_array_equal(cuts[2][0, 0], [2, 3, 1])  # axial: right anterior comes first
    np.testing.assert_array_equal(cuts[1][0, 0], [2, 1, 4])  # coronal: right superior
    np.testing.assert_array_equal(cuts[0][0, 0], [1, 3, 4])  # sagittal: anterior superior
    assert [cuts[axis].shape[:2] for axis in range(3)] == [(5, 4), (5, 3), (4, 3)]


def test_blend_windows_grey_and_tints_organs() -> None:
    grey = blend(np.array([[-500.0, 40.0, 900.0]]), np.array([[0, 0, 1]]), LABELS)
    np.testing.assert_allclose(grey[0, 0], 0)
    np.testing.assert_allclose(grey[0, 1], 0.5)
    np.testing.assert_allclose(
        grey[0, 2], (1 - OPACITY) + OPACITY * np.array(LABELS["parotid_gland_left"].colour) / 255
    )


def test_reoriented_scans_give_the_same_planes() -> None:
    volume = phantom_volume((12, 10, 8), noise_hu=5.0)
    turned = orient(volume, "PIR")
    again = reorient(turned.hu, turned.geometry.to_canonical)
    np.testing.assert_array_equal(plane(again, 1, 4), plane(volume.hu, 1, 4))
    assert isinstance(turned, Volume)
