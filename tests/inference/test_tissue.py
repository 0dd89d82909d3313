"""tissue-hu on torsos by formula: volumes, couch, contrast agent, bowel gas, and words where nothing is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.imaging.volume import Array, Finding, Geometry, Volume
from medseg.inference.tissue import find_body, find_bone, find_fat, find_lungs, segment_tissue
from medseg.models.store import load_model
from medseg.preprocess.restore import LabelMap
from medseg.runtime.progress import Progress
from tests.phantoms import orient

LABELS = load_model("tissue-hu").card.label_table
HEIGHT_MM = 140.0
BODY_ML = math.pi * 90 * 65 * HEIGHT_MM / 1000
LUNGS_ML = 2 * 4 / 3 * math.pi * 30 * 35 * 50 / 1000
BONE_ML = math.pi * 12**2 * HEIGHT_MM / 1000
FAT_ML = 60 * 20 * HEIGHT_MM / 1000


def places(spacing_mm: tuple[float, float, float]) -> tuple[Geometry, Array]:
    shape = tuple(round(size / step) for size, step in zip((220.0, 200.0, HEIGHT_MM), spacing_mm, strict=True))
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing_mm
    mm = np.indices(shape) * np.reshape(spacing_mm, (3, 1, 1, 1)) + affine[:3, 3].reshape(3, 1, 1, 1)
    return Geometry(shape, affine), mm  # type: ignore[arg-type]


def torso(spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.5), noise_hu: float = 10.0) -> tuple[Volume, Array]:
    """Volume, and the mask of its couch."""
    geometry, (x, y, z) = places(spacing_mm)
    hu = np.full(geometry.shape, -1000.0)
    hu[(x / 90) ** 2 + (y / 65) ** 2 <= 1] = 40.0
    for side in (-42.0, 42.0):
        hu[((x - side) / 30) ** 2 + (y / 35) ** 2 + (z / 50) ** 2 <= 1] = -800.0
    hu[x**2 + (y + 48) ** 2 <= 12**2] = 600.0
    hu[(np.abs(x) <= 30) & (np.abs(y - 48) <= 10)] = -100.0
    couch = (np.abs(x) <= 105) & (np.abs(y + 80) <= 4)
    hu[couch] = 150.0
    hu += np.random.default_rng(2).normal(0, noise_hu, hu.shape)
    return Volume(np.round(hu).astype(np.float32), geometry), couch


def volumes(label_map: LabelMap) -> dict[str, float]:
    count = np.bincount(label_map.labels.ravel(), minlength=5) * label_map.geometry.voxel_ml
    return {label.name: float(count[label.value]) for label in LABELS}


def run(volume: Volume) -> tuple[LabelMap, list[Finding]]:
    return segment_tissue(volume, LABELS)


def test_a_torso_has_its_volumes() -> None:
    volume, couch = torso()
    label_map, findings = run(volume)
    found = volumes(label_map)
    assert sum(found.values()) == pytest.approx(BODY_ML, rel=0.03)
    assert found["lungs"] == pytest.approx(LUNGS_ML, rel=0.05)
    assert found["bone"] == pytest.approx(BONE_ML, rel=0.08)
    assert found["fat"] == pytest.approx(FAT_ML, rel=0.10)
    assert not label_map.labels[couch].any()
    assert not label_map.confidence.any()
    assert [(f.code, f.severity) for f in findings] == [("rules_only", "info")]
    assert f"measures {sum(found.values()):.0f} ml" in str(findings[0])


def test_thick_slices_change_little() -> None:
    found = volumes(run(torso((2.0, 2.0, 5.0))[0])[0])
    assert found["lungs"] == pytest.approx(LUNGS_ML, rel=0.07)
    assert found["bone"] == pytest.approx(BONE_ML, rel=0.08)


def test_orientation_changes_no_voxel() -> None:
    volume, _ = torso((4.0, 4.0, 5.0))
    reference = run(volume)[0].labels
    for orientation in ("LPS", "SPR", "AIL", "PRI", "ILA"):
        expected = orient(Volume(reference, volume.geometry), orientation).hu
        np.testing.assert_array_equal(run(orient(volume, orientation))[0].labels, expected, err_msg=orientation)


@pytest.mark.parametrize("level_hu", [-1000.0, -2000.0, -3024.0])
def test_an_empty_scan_says_so(level_hu: float) -> None:
    geometry = Geometry((30, 30, 10), np.diag([3.0, 3.0, 3.0, 1.0]))
    label_map, findings = run(Volume(np.full(geometry.shape, level_hu, np.float32), geometry))
    assert not label_map.labels.any()
    assert [(f.code, f.severity) for f in findings] == [("empty", "warning")]
    assert "nothing was segmented" in str(findings[0])


def test_progress_goes_forward() -> None:
    seen: list[Progress] = []
    segment_tissue(torso((5.0, 5.0, 5.0))[0], LABELS, seen.append)
    fractions = [event.fraction for event in seen]
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0.1
    assert fractions[-1] <= 0.9


def blocks(**parts: tuple[slice, slice, slice, float]) -> Array:
    hu = np.full((60, 50, 30), -1000.0, np.float32)
    for i, j, k, level in parts.values():
        hu[i, j, k] = level
    return hu


EVERY = slice(None)


def test_two_legs_are_one_body_and_a_plate_is_none() -> None:
    hu = blocks(
        left=(slice(5, 25), slice(15, 40), EVERY, 40),
        right=(slice(32, 55), slice(15, 40), EVERY, 40),
        plate=(slice(2, 58), slice(4, 7), EVERY, 100),
        crumb=(slice(27, 30), slice(44, 47), slice(3, 6), 40),
    )
    body = find_body(hu)
    assert body[5:25, 15:40].all()
    assert body[32:55, 15:40].all()
    assert body.sum() == (20 + 23) * 25 * 30


def test_holes_of_the_body_belong_to_it() -> None:
    hu = blocks(body=(slice(5, 55), slice(5, 45), EVERY, 40), lung=(slice(15, 30), slice(15, 30), EVERY, -850))
    assert find_body(hu).sum() == 50 * 40 * 30


def test_no_body_in_air() -> None:
    assert not find_body(np.full((9, 9, 9), -1000.0)).any()


@pytest.mark.parametrize(
    ("level_hu", "side", "is_lung"),
    [
        (-800.0, 15, True),  # 91 ml
        (-995.0, 15, False),  # bowel gas of the same size
        (-800.0, 9, False),  # 20 ml
        (-995.0, 27, True),  # 530 ml: emphysema rather than bowel
    ],
)
def test_lung_is_told_from_gas_by_its_blood_and_size(level_hu: float, side: int, is_lung: bool) -> None:
    hu = np.full((50, 50, 50), 40.0)
    inside = (slice(10, 10 + side),) * 3
    hu[inside] = level_hu
    hu[40:42, 40:42, 40:42] = -800.0  # one bubble of many
    lungs = find_lungs(hu, np.ones(hu.shape, bool), 0.027)
    assert lungs[inside].all() == is_lung
    assert lungs.any() == is_lung


def test_contrast_agent_is_no_bone_and_bone_has_marrow() -> None:
    hu = np.full((60, 60, 10), 40.0)
    body = np.ones(hu.shape, bool)
    hu[5:20, 5:20] = 260.0  # a vessel: above the threshold, without a seed
    hu[30:50, 30:50] = 800.0
    hu[33:47, 33:47] = -60.0  # fatty marrow
    hu[5:6, 50:52, 0:2] = 900.0  # too small
    bone = find_bone(hu, body, 0.001, 1.0)
    assert bone.sum() == 20 * 20 * 10
    assert bone[30:50, 30:50].all()


@pytest.mark.parametrize(
    ("level_hu", "inner", "filled"),
    [
        (-60.0, 14, True),  # fatty marrow
        (120.0, 14, True),  # trabecular
        (35.0, 14, False),  # cord, brain
        (35.0, 3, True),  # a canal of 9 mm2
        (-900.0, 14, False),  # sinus
        (-60.0, 40, False),  # the inside of a pelvis
    ],
)
def test_what_bone_encloses_is_marrow_or_not(level_hu: float, inner: int, filled: bool) -> None:
    hu = np.full((60, 60, 4), 40.0)
    low, high = 30 - inner // 2 - 4, 30 + inner // 2 + 5
    hu[low:high, low:high] = 700.0
    hole = (slice(30 - inner // 2, 30 - inner // 2 + inner),) * 2
    hu[hole] = level_hu
    bone = find_bone(hu, np.ones(hu.shape, bool), 0.01, 1.0)
    assert bone[hole].all() == filled
    assert bone[hole].any() == filled


def test_fat_is_a_range_without_the_rims_of_air() -> None:
    hu = np.full((20, 20, 3), 40.0)
    hu[5:10, 5:10] = -100.0
    hu[15:] = -1000.0
    hu[14] = -100.0  # what blur makes of skin
    hu[0, 0] = -191.0
    fat = find_fat(hu, np.ones(hu.shape, bool))
    assert fat.sum() == 25 * 3
    assert fat[5:10, 5:10].all()
