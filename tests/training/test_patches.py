"""Patches: one seed, one patch; mirrored patients keep their sides; borders are filled with air."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from medseg.errors import ConfigError, DataError
from medseg.labels import LabelTable
from medseg.training.cases import TrainingCase
from medseg.training.patches import PatchSampler, crop
from tests.training.conftest import config

STILL = {"rotate_deg": 0, "scale": [1, 1], "couch": 0, "artificial_body": 0, "noise_hu": 0, "shift_hu": 0}
"""Nothing moves; what is left of the augmentation changes HU a little."""


def sampler(cases: Sequence[TrainingCase], table: LabelTable, **changes: Any) -> PatchSampler:
    return PatchSampler(cases, config(**changes), table)


def same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True)) and a[3] == b[3]


def test_a_patch_depends_on_seed_and_number_alone(cases: list[TrainingCase], table: LabelTable) -> None:
    first = sampler(cases, table)
    wanted = [first.patch(n) for n in range(6)]
    again = sampler(cases, table)
    np.random.seed(1)
    torch.manual_seed(1)
    assert all(same(again.patch(n), wanted[n]) for n in (4, 0, 5, 2))
    assert not any(same(wanted[0], other) for other in wanted[1:])
    assert not same(sampler(cases, table, seed=1).patch(0), wanted[0])


def test_shapes_and_types(cases: list[TrainingCase], table: LabelTable) -> None:
    drawn = sampler(cases, table, patch_size=[8, 12, 16], batch_size=3).batch(2)
    assert drawn.image.shape == (3, 1, 8, 12, 16)
    assert drawn.labels.shape == (3, 8, 12, 16)
    assert drawn.known.shape == (3, 4)
    assert (drawn.image.dtype, drawn.labels.dtype, drawn.known.dtype) == (torch.float32, torch.int64, torch.bool)
    assert len(drawn.ids) == 3
    assert drawn.image.min() >= -1
    assert drawn.image.max() <= 3


def test_a_step_draws_the_patches_that_are_its_own(cases: list[TrainingCase], table: LabelTable) -> None:
    source = sampler(cases, table)
    third, fourth = source.batch(3), source.batch(4)
    assert torch.equal(third.image[1], source.patch(7)[0])
    assert torch.equal(fourth.labels[0], source.patch(8)[1])


def sides(cases: list[TrainingCase], table: LabelTable, mirror: float) -> list[tuple[float, float, float, float]]:
    """Per patch with both glands: place along i and brightness of the left one, the same of the right one."""
    source = sampler(
        cases, table, patch_size=[24, 24, 24], foreground_share=1, augment=STILL | {"mirror_left_right": mirror}
    )
    found = []
    for number in range(8):
        image, labels, known, _ = source.patch(number)
        assert known.all()
        if (labels == 1).any() and (labels == 2).any():
            left, right = ((labels == value).nonzero()[:, 0].float().mean().item() for value in (1, 2))
            bright = [image[0][labels == value].mean().item() for value in (1, 2)]
            found.append((left, bright[0], right, bright[1]))
    assert len(found) >= 4
    return found


def test_unmirrored_the_sphere_is_left_and_bright(cases: list[TrainingCase], table: LabelTable) -> None:
    for left, sphere, right, box in sides(cases, table, mirror=0):
        assert left < right  # i grows to the right
        assert sphere - box > 0.3  # 120 HU and -90 HU in units of 300 HU, blurred


def test_mirrored_patients_keep_left_on_their_left(cases: list[TrainingCase], table: LabelTable) -> None:
    """The box of fat comes to lie on the left, and is the left gland there."""
    for left, box, right, sphere in sides(cases, table, mirror=1):
        assert left < right
        assert sphere - box > 0.3


def test_mirrored_what_is_known_changes_sides(cases: list[TrainingCase], table: LabelTable) -> None:
    half = [replace(case, known=np.array([True, True, False, True])) for case in cases]
    for mirror, wanted in ((0, [True, True, False, True]), (1, [True, False, True, True])):
        source = sampler(half, table, augment=STILL | {"mirror_left_right": mirror})
        assert all(source.patch(n)[2].tolist() == wanted for n in range(3))
    assert half[0].known.tolist() == [True, True, False, True]


def test_organs_are_drawn_evenly_and_lie_in_the_patch(cases: list[TrainingCase], table: LabelTable) -> None:
    """The glands are a twentieth of the body; centred patches nearly always show the organ they were drawn for."""
    source = sampler(cases, table, foreground_share=1, augment=STILL)
    seen = np.array([[(source.patch(n)[1] == value).any() for value in (1, 2, 3)] for n in range(12)])
    assert (seen.sum(axis=0) >= 4).all()
    assert seen.any(axis=1).all()


def test_an_organ_that_nobody_has_is_replaced_by_anything(cases: list[TrainingCase], table: LabelTable) -> None:
    bare = [replace(case, places={0: case.places[0]}) for case in cases]
    image, labels, _, name = sampler(bare, table, foreground_share=1).patch(0)
    assert image.shape[1:] == labels.shape
    assert name in {case.id for case in cases} | {"artificial"}


def test_artificial_bodies_hold_no_landmark_and_maybe_a_cord(cases: list[TrainingCase], table: LabelTable) -> None:
    source = sampler(cases, table, augment={"artificial_body": 1})
    image, labels, known, name = source.patch(0)
    assert not labels.any()
    assert known.tolist() == [True, True, True, False]
    assert name == "artificial"
    assert image.shape == (1, 16, 16, 16)
    assert source.batch(0).ids == ("artificial", "artificial")


@pytest.mark.parametrize("side", [16, 18])
def test_patches_that_are_not_turned_keep_their_voxels(cases: list[TrainingCase], table: LabelTable, side: int) -> None:
    source = sampler(cases, table, patch_size=[side] * 3, augment=STILL | {"affine": 0, "mirror_left_right": 0})
    centre = np.array(cases[0].hu.shape) // 2
    hu, labels, _, _ = source._changed(cases[0], centre, np.random.default_rng(0))
    assert np.array_equal(hu, crop(cases[0].hu, centre, [side] * 3, -1024))
    assert np.array_equal(labels, crop(cases[0].labels, centre, [side] * 3, 0))


def test_as_many_patches_are_turned_as_wanted(cases: list[TrainingCase], table: LabelTable) -> None:
    source = sampler(cases, table, augment=STILL | {"affine": 0.4, "rotate_deg": 15, "mirror_left_right": 0})
    centre = np.array(cases[0].hu.shape) // 2
    whole = crop(cases[0].hu, centre, source.config.patch_size, -1024)
    drawn = [source._changed(cases[0], centre, np.random.default_rng(n))[0] for n in range(100)]
    assert 25 <= sum(not np.array_equal(hu, whole) for hu in drawn) <= 55


def test_couches_change_the_picture_and_no_label(cases: list[TrainingCase], table: LabelTable) -> None:
    plain = sampler(cases, table, augment=STILL | {"couch": 0})
    lying = sampler(cases, table, augment=STILL | {"couch": 1})
    pairs = [(plain.patch(n), lying.patch(n)) for n in range(6)]
    assert all(torch.equal(a[1], b[1]) for a, b in pairs)
    assert any(not torch.equal(a[0], b[0]) for a, b in pairs)


def test_scans_are_not_changed_by_sampling(cases: list[TrainingCase], table: LabelTable) -> None:
    before = [(case.hu.copy(), case.labels.copy()) for case in cases]
    source = sampler(cases, table)
    for number in range(6):
        source.patch(number)
    for case, (hu, labels) in zip(cases, before, strict=True):
        np.testing.assert_array_equal(case.hu, hu)
        np.testing.assert_array_equal(case.labels, labels)


def test_no_cases_are_an_error(table: LabelTable) -> None:
    with pytest.raises(DataError, match=r"no training cases.*split `train`"):
        sampler([], table)


@pytest.mark.parametrize("setting", ["open_ended", "organ_weights", "voxel_weights"])
def test_organs_that_are_named_must_exist(cases: list[TrainingCase], table: LabelTable, setting: str) -> None:
    names = ["spinal_cord", "oesophagus"]
    with pytest.raises(ConfigError, match=rf"{setting} names organs that the dataset lacks: oesophagus.*spinal_cord"):
        sampler(cases, table, **{setting: names if setting == "open_ended" else dict.fromkeys(names, 2.0)})


def test_some_organ_must_be_drawn(cases: list[TrainingCase], table: LabelTable) -> None:
    with pytest.raises(ConfigError, match="every organ has the weight 0"):
        sampler(cases, table, organ_weights=dict.fromkeys(table.names, 0.0))


@pytest.mark.parametrize(
    ("centre", "inside"),
    [
        ((5, 5, 5), (slice(0, 4), slice(0, 4), slice(0, 4))),
        ((0, 5, 5), (slice(2, 4), slice(0, 4), slice(0, 4))),
        ((10, 5, 9), (slice(0, 2), slice(0, 4), slice(0, 3))),
    ],
)
def test_crop_fills_what_lies_outside(centre: tuple[int, int, int], inside: tuple[slice, slice, slice]) -> None:
    array = np.arange(1, 1001, dtype=np.int16).reshape(10, 10, 10)
    block = crop(array, np.array(centre), (4, 4, 4), -7)
    wanted = np.full((4, 4, 4), -7)
    for place in np.ndindex(4, 4, 4):
        at = tuple(np.array(centre) - 2 + place)
        if all(0 <= n < 10 for n in at):
            wanted[place] = array[at]
    np.testing.assert_array_equal(block, wanted)
    assert (block[inside] > 0).all()
    assert block.dtype == np.int16


@pytest.mark.parametrize("centre", [(-9, 5, 5), (5, 30, 5)])
def test_crop_far_outside_is_fill_alone(centre: tuple[int, int, int]) -> None:
    assert (crop(np.ones((10, 10, 10)), np.array(centre), (4, 4, 4), -7) == -7).all()


def test_crop_may_be_larger_than_the_scan() -> None:
    block = crop(np.ones((4, 4, 4)), np.array([2, 2, 2]), (8, 8, 8), 0)
    assert block[2:6, 2:6, 2:6].all()
    assert block.sum() == 64


def test_one_side_of_a_pair_is_not_mirrored_in_silence(cases: list[TrainingCase]) -> None:
    alone = LabelTable.from_names({"parotid_gland_left": 1, "parotid_R": 2, "spinal_cord": 3})
    with pytest.raises(ConfigError, match=r"no partner on the other side: parotid_gland_left, parotid_R\."):
        sampler(cases, alone)
    with pytest.raises(ConfigError, match="no partner"):
        sampler(cases, alone, augment={"mirror_left_right": 0}, mirror_average=True)
    assert sampler(cases, alone, augment={"mirror_left_right": 0}).num_classes == 4


def test_patches_are_plain_tensors(cases: list[TrainingCase], table: LabelTable) -> None:
    batch = PatchSampler(cases, config(), table).batch(0)
    assert {type(batch.image), type(batch.labels), type(batch.known)} == {torch.Tensor}
