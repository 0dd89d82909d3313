"""Volumes, HU, extents and edges against values known by hand, in several orientations."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.imaging.volume import Geometry, Volume
from medseg.labels import LabelTable
from medseg.preprocess.restore import LabelMap
from medseg.results.measure import Measurement, measure
from tests.phantoms import ORIENTATIONS, SPHERE_ML, SPHERE_RADIUS_MM, orient, phantom_labels, phantom_volume

LABELS = LabelTable.from_names({"brainstem": 1, "larynx": 2, "mandible": 5})


def scan_and_mask() -> tuple[Volume, Volume]:
    """A box of 4 x 5 x 6 voxels of 1 x 2 x 3 mm; its HU are 0 in one half and 100 in the other."""
    geometry = Geometry((12, 13, 14), np.diag([1.0, 2.0, 3.0, 1.0]))
    hu = np.full(geometry.shape, -1000.0, np.float32)
    mask = np.zeros(geometry.shape, np.float32)
    hu[3:7, 2:7, 5:11] = 0
    hu[3:7, 2:7, 8:11] = 100
    mask[3:7, 2:7, 5:11] = 1
    mask[11, 12, 13] = 2
    return Volume(hu, geometry), Volume(mask, geometry)


def rows(scan: Volume, mask: Volume, confidence: int = 204) -> tuple[Measurement, ...]:
    labels = mask.hu.astype(np.uint8)
    sure = np.where(labels > 0, confidence, 0).astype(np.uint8)
    return measure(LabelMap(labels, sure, mask.geometry), scan, LABELS)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_a_box_is_measured_alike_in_every_orientation(orientation: str) -> None:
    scan, mask = (orient(volume, orientation) for volume in scan_and_mask())
    box, corner, nothing = rows(scan, mask)
    assert box == Measurement(
        organ="brainstem",
        label=1,
        volume_ml=0.72,
        mean_hu=50.0,
        sd_hu=50.0,
        extent_mm=(4.0, 10.0, 18.0),
        slices=6,
        touches_edge=False,
        mean_probability=0.8,
    )
    assert (corner.volume_ml, corner.slices, corner.touches_edge) == (0.006, 1, True)
    assert corner.extent_mm == (1.0, 2.0, 3.0)
    assert nothing == Measurement("mandible", 5, 0.0, None, None, (0.0, 0.0, 0.0), 0, False, None)


@pytest.mark.parametrize("face", [(0, 0), (0, -1), (1, 0), (1, -1), (2, 0), (2, -1)])
def test_every_face_of_the_scan_counts_as_its_edge(face: tuple[int, int]) -> None:
    scan, mask = scan_and_mask()
    mask.hu[:] = 0
    where = [5, 5, 5]
    where[face[0]] = face[1]
    mask.hu[tuple(where)] = 1
    assert rows(scan, mask)[0].touches_edge


def test_a_slice_counts_when_a_part_of_it_is_filled() -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[1:5, 1, 1] = labels[1, 1:5, 2] = labels[1, 1, 3] = 1
    geometry = Geometry((6, 6, 6), np.eye(4))
    volume = Volume(np.zeros((6, 6, 6), np.float32), geometry)
    table = LabelTable.from_json([{"name": "brainstem", "value": 1, "color": [1, 2, 3]}])
    (row,) = measure(LabelMap(labels, labels, geometry), volume, table)
    assert row.slices == 3
    assert row.extent_mm == (4.0, 4.0, 3.0)


def test_rules_have_no_probability() -> None:
    assert rows(*scan_and_mask(), confidence=0)[0].mean_probability is None


def test_slices_with_a_gap_between_are_counted_not_spanned() -> None:
    scan, mask = scan_and_mask()
    mask.hu[:, :, 7] = 0
    row = rows(scan, mask)[0]
    assert (row.slices, row.extent_mm[2]) == (5, 18.0)


def test_an_oblique_grids_organ_has_its_volume_and_extents_along_the_patients_axes() -> None:
    scan, mask = scan_and_mask()
    angle = np.radians(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    grid = Geometry(mask.geometry.shape, turn @ mask.affine)
    row = rows(Volume(scan.hu, grid), Volume(mask.hu, grid))[0]
    assert row.volume_ml == 0.72
    across = 10 * np.cos(angle) + 18 * np.sin(angle)
    assert row.extent_mm == (4.0, round(across, 1), round(18 * np.cos(angle) + 10 * np.sin(angle), 1))


def test_a_rod_upright_in_the_patient_is_as_thin_on_an_oblique_grid() -> None:
    angle = np.radians(25)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, 3] = -affine[:3, :3] @ (30.0, 60.0, 60.0)
    grid = Geometry((60, 120, 120), affine)
    places = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    inside = (np.abs(places @ affine[:3, :3].T + affine[:3, 3]) <= (5, 5, 40)).all(axis=-1).astype(np.uint8)
    row = measure(LabelMap(inside, inside, grid), Volume(inside.astype(np.float32), grid), LABELS)[0]
    np.testing.assert_allclose(row.extent_mm, (11, 10, 80), atol=2.0)


def test_the_phantoms_sphere() -> None:
    scan = phantom_volume((70, 60, 50), (2.0, 2.0, 2.5), orientation="LIP", noise_hu=0.0)
    labels = phantom_labels(scan)
    row = measure(LabelMap(labels, labels, scan.geometry), scan, LABELS)[0]
    assert row.volume_ml == pytest.approx(SPHERE_ML, rel=0.02)
    assert (row.mean_hu, row.sd_hu) == (120.0, 0.0)
    np.testing.assert_allclose(row.extent_mm, 2 * SPHERE_RADIUS_MM, atol=2.6)


def test_rows_become_plain_json() -> None:
    row = rows(*scan_and_mask())[0].to_json()
    assert row["extent_mm"] == [4.0, 10.0, 18.0]
    assert list(row)[:3] == ["organ", "label", "volume_ml"]


def test_rows_are_told_as_precisely_as_they_are_known() -> None:
    """HU and mm to a tenth, ml and probabilities to a thousandth."""
    geometry = Geometry((5, 4, 3), np.diag([0.7777, 0.8888, 1.1111, 1.0]))
    hu = np.full(geometry.shape, -1000.0, np.float32)
    labels, sure = np.zeros(geometry.shape, np.uint8), np.zeros(geometry.shape, np.uint8)
    hu[1:4, 1, 1], labels[1:4, 1, 1], sure[1:4, 1, 1] = (10, 20, 41), 1, (0, 100, 201)
    row = measure(LabelMap(labels, sure, geometry), Volume(hu, geometry), LABELS)[0]
    assert (row.mean_hu, row.sd_hu) == (23.7, 12.9)
    assert row.extent_mm == (2.3, 0.9, 1.1)
    assert row.volume_ml == 0.002
    assert row.mean_probability == 0.393
