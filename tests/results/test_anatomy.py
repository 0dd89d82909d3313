"""Constellations: a head and neck is believed, a jaw in a leg is not, and words say what lies outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medseg.imaging.volume import Finding, Geometry, Volume
from medseg.labels import LabelTable
from medseg.models.card import Anatomy, FieldLimits, Offset, OrganRange
from medseg.preprocess.restore import LabelMap
from medseg.results.anatomy import check_anatomy, height_of_plane
from tests.phantoms import orient

LABELS = LabelTable.from_names({"brainstem": 1, "spinal_cord": 2, "larynx": 3, "mandible": 4})
PLACES = {"brainstem": (0, -20, 60), "larynx": (0, 30, -70), "mandible": (0, 40, -10), "spinal_cord": (0, -50, -40)}
SIZES = {"brainstem": (30, 30, 30), "larynx": (25, 25, 25), "mandible": (35, 35, 35), "spinal_cord": (10, 10, 210)}
HU = {"brainstem": 30.0, "larynx": 40.0, "mandible": 500.0, "spinal_cord": 30.0}


def offset(start: str, end: str) -> Offset:
    x, y, z = np.subtract(PLACES[end], PLACES[start]).astype(float)
    return Offset(start=start, end=end, mean_mm=(x, y, z), sd_mm=(3.0, 4.0, 6.0))


ANATOMY = Anatomy(
    upper_end="skull base",
    lower_end="thoracic inlet",
    organs={
        "brainstem": OrganRange(volume_ml=(15, 25, 40), mean_hu=(10, 30, 60)),
        "larynx": OrganRange(volume_ml=(8, 15, 25), mean_hu=(-50, 40, 90)),
        "mandible": OrganRange(volume_ml=(25, 45, 80), mean_hu=(300, 500, 800)),
        "spinal_cord": OrganRange(volume_ml=(8, 15, 30), mean_hu=(10, 30, 60)),
    },
    offsets=[
        offset("brainstem", "larynx"),
        offset("mandible", "brainstem"),
        offset("larynx", "mandible"),
        offset("mandible", "spinal_cord"),
        offset("spinal_cord", "larynx"),
    ],
    field={
        "brainstem": FieldLimits(below_mm=200, above_mm=30),
        "larynx": FieldLimits(below_mm=70, above_mm=160),
        "mandible": FieldLimits(below_mm=130, above_mm=100),
    },
)


def grid(low_mm: float = -160.0, high_mm: float = 145.0) -> Geometry:
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = (-72.5, -97.5, low_mm)
    return Geometry((30, 40, round((high_mm - low_mm) / 5)), affine)


def plant(geometry: Geometry, names: tuple[str, ...] = tuple(PLACES), **moved_mm: Any) -> tuple[LabelMap, Volume]:
    """Boxes where the organs belong; `moved_mm` displaces single ones."""
    index = np.indices(geometry.shape).reshape(3, -1)
    mm = (geometry.affine[:3, :3] @ index + geometry.affine[:3, 3:]).reshape(3, *geometry.shape)
    mask, hu = np.zeros(geometry.shape, np.uint8), np.zeros(geometry.shape, np.float32)
    for name in names:
        centre = np.add(PLACES[name], moved_mm.get(name, (0, 0, 0))).reshape(3, 1, 1, 1)
        inside = (np.abs(mm - centre) <= np.reshape(SIZES[name], (3, 1, 1, 1)) / 2).all(axis=0)
        mask[inside], hu[inside] = LABELS[name].value, HU[name]
    return LabelMap(mask, np.where(mask > 0, 230, 0).astype(np.uint8), geometry), Volume(hu, geometry)


def check(planted: tuple[LabelMap, Volume], anatomy: Anatomy = ANATOMY) -> tuple[LabelMap, list[Finding]]:
    return check_anatomy(*planted, LABELS, anatomy)


def volumes(label_map: LabelMap) -> dict[str, int]:
    return {label.name: int((label_map.labels == label.value).sum()) for label in LABELS}


def test_a_head_and_neck_is_kept_and_cut_to_the_field() -> None:
    planted = plant(grid())
    before = planted[0].labels.copy()
    checked, findings = check(planted)
    heights = np.stack([height_of_plane(grid(), i) for i in range(grid().shape[0])])
    expected = np.where(heights < -140, 0, before)  # each of the three says: the field starts at -140 mm
    np.testing.assert_array_equal(checked.labels, expected)
    assert (expected != before).any()
    np.testing.assert_array_equal(checked.confidence > 0, expected > 0)
    np.testing.assert_array_equal(planted[0].labels, before)
    assert [(f.code, f.severity) for f in findings] == [("partly_outside_field", "info")] * 2
    assert "lowest 20 mm of the scan lie below the thoracic inlet" in str(findings[0])
    assert "highest 50 mm of the scan lie above the skull base" in str(findings[1])


def test_a_scan_of_the_field_alone_needs_no_words() -> None:
    checked, findings = check(plant(grid(-140.0, 100.0)))
    assert findings == []
    assert all(volumes(checked).values())


def test_bent_necks_are_believed() -> None:
    checked, _ = check(plant(grid(), larynx=(10, 15, 15)))
    assert volumes(checked)["larynx"] > 0


def test_an_organ_that_lies_where_it_cannot_is_dropped_and_named() -> None:
    checked, findings = check(plant(grid(), larynx=(0, -100, 100)))
    found = volumes(checked)
    assert found["larynx"] == 0
    assert min(found["brainstem"], found["mandible"], found["spinal_cord"]) > 0
    said = [f for f in findings if f.code == "organ_not_found"]
    assert [f.severity for f in said] == ["warning"]
    assert str(said[0]) == "Larynx: not found, although its usual place lies inside the scan. Check the images."


def test_an_organ_whose_place_was_not_scanned_is_a_remark() -> None:
    checked, findings = check(plant(grid(-50.0, 100.0), ("brainstem", "mandible")))
    assert volumes(checked)["mandible"] > 0
    said = {str(f): f.severity for f in findings if f.code == "organ_not_found"}
    assert said["Larynx: not found; its usual place lies outside the scan."] == "info"


def test_an_organ_without_any_offset_is_just_not_found() -> None:
    loose = ANATOMY.model_copy(update={"offsets": ANATOMY.offsets[:3]})
    _, findings = check(plant(grid(-140.0, 100.0), ("brainstem", "larynx", "mandible")), loose)
    assert [str(f) for f in findings] == ["Spinal cord: not found."]


@pytest.mark.parametrize(
    ("names", "moved"),
    [
        (("mandible",), {}),  # 500 HU and the right size, but see the confidence below
        (("brainstem", "mandible"), {"mandible": (60, -60, -40)}),  # two that contradict each other
        (("spinal_cord",), {}),  # no landmark
        ((), {}),
    ],
)
def test_what_one_finds_in_a_leg_is_refused(names: tuple[str, ...], moved: dict[str, Any]) -> None:
    label_map, volume = plant(grid(), names, **moved)
    unsure = LabelMap(label_map.labels, np.where(label_map.labels > 0, 150, 0).astype(np.uint8), label_map.geometry)
    checked, findings = check((unsure, volume))
    assert not checked.labels.any()
    assert not checked.confidence.any()
    assert [(f.code, f.severity) for f in findings] == [("outside_field", "warning")]
    assert "outside the model's field (skull base to thoracic inlet)" in str(findings[0])


def test_one_organ_alone_is_never_believed() -> None:
    for low_mm, high_mm in ((-30.0, 30.0), (-160.0, 145.0)):
        checked, findings = check(plant(grid(low_mm, high_mm), ("mandible",)))
        assert not checked.labels.any()
        assert findings[0].code == "outside_field"


def test_two_that_agree_still_have_to_be_plausible() -> None:
    label_map, volume = plant(grid(), ("brainstem", "mandible"))
    assert volumes(check((label_map, volume))[0])["mandible"] > 0
    hot = Volume(volume.hu + 900, volume.geometry)
    assert not check((label_map, hot))[0].labels.any()


def test_fragments_are_no_witnesses() -> None:
    label_map, volume = plant(grid())
    mask = np.where(label_map.labels == 4, 0, label_map.labels)
    mask[15, 20, 30] = 4
    checked, findings = check((LabelMap(mask, label_map.confidence, label_map.geometry), volume))
    assert volumes(checked)["mandible"] == 0
    assert any("Mandible: not found" in str(f) for f in findings)


@pytest.mark.parametrize(("moved_mm", "kept"), [((0, 0, 0), True), ((0, -70, 0), False), ((0, 0, -5), True)])
def test_what_the_end_of_the_scan_leaves_of_an_organ_counts_in_its_place(
    moved_mm: tuple[float, ...], kept: bool
) -> None:
    geometry = grid(high_mm=50.0)
    label_map, volume = plant(geometry, ("brainstem", "larynx", "mandible"), brainstem=moved_mm)
    mask = label_map.labels.copy()
    mask[15:][mask[15:] == 1] = 0  # less than a quarter of the smallest reference is left
    mask[..., :-1][mask[..., :-1] == 1] = 0
    assert 0 < (mask == 1).sum() * 0.125 < 15 / 4
    checked, _ = check((LabelMap(mask, label_map.confidence, geometry), volume))
    assert (volumes(checked)["brainstem"] > 0) == kept
    assert volumes(checked)["mandible"] > 0


@pytest.mark.parametrize("orientation", ["LPS", "SPR", "IAL", "PSL"])
def test_orientation_changes_nothing(orientation: str) -> None:
    label_map, volume = plant(grid(), larynx=(0, -100, 100))
    checked, findings = check((label_map, volume))
    sides = [orient(Volume(array, grid()), orientation) for array in (label_map.labels, label_map.confidence)]
    turned = LabelMap(sides[0].hu, sides[1].hu, sides[0].geometry)
    again, said = check((turned, orient(volume, orientation)))
    np.testing.assert_array_equal(again.labels, orient(Volume(checked.labels, grid()), orientation).hu)
    assert said == findings


def test_heights_of_a_plane_upright_and_tilted() -> None:
    np.testing.assert_allclose(height_of_plane(grid(), 7)[5, :2], [-160.0, -155.0])
    tilted = grid().affine.copy()
    tilted[2, :2] = 0.25, 0.5
    heights = height_of_plane(Geometry((3, 4, 5), tilted), 2)
    assert heights.shape == (4, 5)
    assert heights[3, 4] == pytest.approx((tilted @ [2, 3, 4, 1])[2])


def test_a_turned_scan_is_cut_to_the_field_across_its_slices() -> None:
    angle, turn = np.radians(4), np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    label_map, volume = plant(Geometry(grid().shape, turn @ grid().affine))
    checked, _ = check((label_map, volume))
    heights = np.stack([height_of_plane(label_map.geometry, i) for i in range(grid().shape[0])])
    cut = (label_map.labels > 0) & (checked.labels == 0)
    assert cut.any()
    assert heights[cut].max() < heights[checked.labels > 0].min()


def test_organs_that_no_reference_showed_together_do_not_vouch_for_each_other() -> None:
    strangers = ANATOMY.model_copy(update={"offsets": [offset("mandible", "brainstem"), offset("larynx", "mandible")]})
    checked, findings = check(plant(grid(-140.0, 100.0)), strangers)
    found = volumes(checked)
    assert found["mandible"] > 0
    assert sorted([found["brainstem"] > 0, found["larynx"] > 0]) == [False, True]
    assert any(f.code == "organ_not_found" and f.severity == "warning" for f in findings)
