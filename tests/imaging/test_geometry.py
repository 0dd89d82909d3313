"""Geometry by hand-computed numbers: what a mutant of the formulas would change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.imaging.grid import check_affine, check_shape, coarse_findings, file_evidence, grids_differ
from medseg.imaging.volume import (
    NOT_PROVABLE,
    Finding,
    Geometry,
    Volume,
    corner_distance,
    reorient,
    restore_orientation,
)

PATH = Path("scan.nii")
AFFINE = np.array([[-2.0, 0, 0, 10], [0, -3.0, 0, 20], [0, 0, 4.0, 30], [0, 0, 0, 1]])


def test_spacing_volume_and_letters() -> None:
    geometry = Geometry((5, 6, 7), AFFINE)
    assert geometry.spacing_mm == (2.0, 3.0, 4.0)
    assert geometry.voxel_ml == pytest.approx(0.024)
    assert geometry.orientation == "LPS"
    assert Geometry((5, 6, 7), AFFINE[[1, 0, 2, 3]]).spacing_mm == (2.0, 3.0, 4.0)
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 0] = 1


def test_canonical_grid_of_the_same_voxels() -> None:
    geometry = Geometry((5, 6, 7), AFFINE[:, [1, 2, 0, 3]])
    canonical = geometry.canonical()
    assert canonical.orientation == "RAS"
    assert canonical.shape == (7, 5, 6)
    assert canonical.affine[:3, :3].tolist() == np.diag([2.0, 3.0, 4.0]).tolist()
    assert canonical.affine[:3, 3].tolist() == [10 - 2 * 6, 20 - 3 * 4, 30]


@pytest.mark.parametrize(("moved", "same"), [(0.0009, True), (0.0011, False), (-0.0011, False)])
def test_grids_match_within_a_thousandth(moved: float, same: bool) -> None:
    geometry, other = Geometry((5, 6, 7), AFFINE), AFFINE.copy()
    other[1, 3] += moved
    assert geometry.matches(Geometry((5, 6, 7), other)) is same
    assert not geometry.matches(Geometry((5, 6, 8), AFFINE))
    stretched = AFFINE.copy()
    stretched[2, 2] += moved / 6  # the last of seven slices is six steps away
    assert geometry.matches(Geometry((5, 6, 7), stretched)) is same


def test_there_and_back() -> None:
    array = np.arange(60).reshape(3, 4, 5)
    ornt = np.array([[2, -1], [0, 1], [1, -1]])
    turned = reorient(array, ornt)
    assert turned.shape == (4, 5, 3)
    assert np.array_equal(restore_orientation(turned, ornt), array)


def test_a_volume_tells_its_grid() -> None:
    volume = Volume(np.zeros((5, 6, 7), np.float32), Geometry((5, 6, 7), AFFINE))
    assert (volume.spacing_mm, volume.findings, volume.evidence) == ((2.0, 3.0, 4.0), (), {})
    assert np.array_equal(volume.affine, AFFINE)
    noted = Volume(volume.hu, volume.geometry, series="1.2.826.7", evidence={"instance_numbers": [1, 7]})
    assert "1.2.826.7" not in repr(noted)
    assert "instance_numbers" not in repr(noted)
    assert str(Finding("a", "text")) == "text"
    assert Finding("a", "text").severity == "warning"


def test_seams_are_frozen() -> None:
    volume = Volume(np.zeros((5, 6, 7), np.float32), Geometry((5, 6, 7), AFFINE))
    for thing in (volume, volume.geometry, Finding("a", "text")):
        with pytest.raises(AttributeError):
            thing.name = thing.shape = thing.code = "changed"  # type: ignore[union-attr,misc]


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 2, 2, 1), (1000, 1000, 1000)])
def test_shapes_that_are_volumes(shape: tuple[int, ...]) -> None:
    assert check_shape(PATH, shape) == shape[:3]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((2, 2), errors.NotVolumeError),
        ((2, 2, 1), errors.NotVolumeError),
        ((1, 2, 2), errors.NotVolumeError),
        ((2, 2, 2, 2), errors.NotVolumeError),
        ((2, 2, 2, 1, 3), errors.NotVolumeError),
        ((1001, 1000, 1000), errors.TooLargeError),
    ],
)
def test_shapes_that_are_not(shape: tuple[int, ...], kind: type[errors.InputError]) -> None:
    with pytest.raises(kind):
        check_shape(PATH, shape)


def _scaled(x: float, y: float, z: float) -> np.ndarray:
    return np.diag([x, y, z, 1.0])


@pytest.mark.parametrize("affine", [_scaled(0.02, 1, 1), _scaled(1, 50, 1), _scaled(-1, 1, 3), AFFINE])
def test_affines_of_boxes(affine: np.ndarray) -> None:
    check_affine(PATH, affine)


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (_scaled(0.0199, 1, 1), "cannot be that of a CT"),
        (_scaled(1, 50.1, 1), "cannot be that of a CT"),
        (_scaled(1, 0, 1), "empty or doubled"),
        (_scaled(1, np.nan, 1), "NaN"),
        (np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "empty or doubled"),
        (np.array([[1.0, 0.0021, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "sheared by 0.06 degrees"),
    ],
)
def test_affines_that_are_no_boxes(affine: np.ndarray, words: str) -> None:
    with pytest.raises(errors.GeometryError, match=words):
        check_affine(PATH, affine)


def test_a_shear_below_the_limit_passes() -> None:
    check_affine(PATH, np.array([[1.0, 0.0019, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))


@pytest.mark.parametrize(("mm", "said"), [(7.5, 0), (7.51, 1)])
def test_coarse_slices_are_said(mm: float, said: int) -> None:
    assert len(coarse_findings(_scaled(1, 1, mm))) == said
    assert len(coarse_findings(_scaled(mm, 1, 1))) == said


def test_coarse_slices_are_seen_however_they_lie() -> None:
    half = np.sqrt(0.5)
    turn = np.array([[1.0, 0, 0, 0], [0, half, -half, 0], [0, half, half, 0], [0, 0, 0, 1]])
    (finding,) = coarse_findings(turn @ _scaled(1, 1, 8))
    assert "8.0 mm apart" in str(finding)
    assert coarse_findings(turn @ _scaled(1, 7, 7)) == ()


def test_how_grids_differ() -> None:
    shape = (10, 10, 10)
    assert grids_differ(AFFINE, AFFINE, shape, 0.01) == ""
    moved = AFFINE.copy()
    moved[0, 3] += 0.02
    assert grids_differ(AFFINE, moved, shape, 0.01) == "the origin differs by 0.02 mm"
    assert grids_differ(AFFINE, moved, shape, 0.03) == ""
    stretched = AFFINE.copy()
    stretched[2, 2] += 0.002
    assert "spacing differs (2/2, 3/3, 4/4.002 mm)" in grids_differ(AFFINE, stretched, shape, 0.01)
    assert grids_differ(AFFINE, stretched, shape, 0.03) == ""
    angle = np.deg2rad(0.2)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = AFFINE @ turn
    turned[:3, 3] = AFFINE[:3, 3]
    assert "degrees" in grids_differ(np.diag([1.0, 1, 1, 1]), turn, shape, 0.01)
    angle = np.deg2rad(0.09)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert grids_differ(np.eye(4), turn, shape, 0.01) == ""
    assert grids_differ(np.full((4, 4), np.nan), AFFINE, shape, 0.01)


def test_the_farthest_corner() -> None:
    other = AFFINE.copy()
    other[2, 2] += 0.5
    assert corner_distance(AFFINE, other, (5, 6, 7)) == pytest.approx(3.0)
    other[2, 3] -= 1.0
    assert corner_distance(AFFINE, other, (5, 6, 7)) == pytest.approx(2.0)


def test_evidence_of_a_file() -> None:
    found = file_evidence(("a", "b"), 0.00000049, checksum=True)
    assert found["readers"] == ["a", "b"]
    assert found["largest_corner_difference_mm"] == 0.0
    assert found["completeness"] == "checksum and length"
    assert found["not_provable"] == NOT_PROVABLE
    assert file_evidence(("a", "b"), 0, checksum=False)["completeness"] == "length"
