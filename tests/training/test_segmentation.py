"""The segmentation task: what it looks at on the way, and what a resumed run may not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.labels import LabelTable
from medseg.networks.catalogue import NETWORKS
from medseg.training import segmentation
from medseg.training.cases import TrainingCase
from medseg.training.patches import PatchSampler
from medseg.training.segmentation import SegmentationTask
from tests.training.conftest import config


class Told(nn.Module):
    """Knows the labels of the scan by its brightness: the phantom's organs have HU of their own; misses the third."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        hu = 300 * x  # the usual window
        found = torch.where((hu > 85) & (hu < 300), 1, torch.where((hu > -200) & (hu < -40), 2, 0))
        return nn.functional.one_hot(found[:, 0], 4).movedim(-1, 1).float() + 0 * self.anchor


def task(cases: list[TrainingCase], table: LabelTable, **changes: object) -> SegmentationTask:
    settings = config(**changes)
    return SegmentationTask(PatchSampler(cases, settings, table), settings, cases[:2])


def test_dice_on_the_way_is_that_of_the_contoured_organs(cases: list[TrainingCase], table: LabelTable) -> None:
    figures = task(cases, table).validate(Told(), 5)
    assert set(figures) == {"dice", "parotid_gland_left", "parotid_gland_right", "spinal_cord"}
    assert figures["parotid_gland_left"] > 0.5
    assert figures["spinal_cord"] == 0
    assert figures["dice"] == pytest.approx(sum(figures[label.name] for label in table) / 3)


def test_ranks_wait_for_each_other_before_they_share_their_figures(
    cases: list[TrainingCase], table: LabelTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(segmentation, "wait_for_all", lambda: done.append("waited"))
    monkeypatch.setattr(segmentation, "all_values", lambda rows: done.append("shared") or [rows])
    task(cases, table).validate(Told(), 5)
    assert done == ["waited", "shared"]


def test_an_organ_that_was_not_contoured_is_not_judged(cases: list[TrainingCase], table: LabelTable) -> None:
    unknown = [replace(case, known=np.array([True, True, True, False])) for case in cases]
    assert "spinal_cord" not in task(unknown, table).validate(Told(), 5)


def test_without_cases_there_are_no_figures(cases: list[TrainingCase], table: LabelTable) -> None:
    settings = config()
    assert SegmentationTask(PatchSampler(cases, settings, table), settings).validate(Told(), 5) == {}


def test_words_and_places_may_change_and_patches_may_not(cases: list[TrainingCase], table: LabelTable) -> None:
    first = task(cases, table).identity()
    assert task(cases, table, version="9", card={"title": "x"}).identity() == first
    assert task(cases, table, batch_size=7).identity() != first


def test_organs_and_cases_may_not_change_within_a_run(cases: list[TrainingCase], table: LabelTable) -> None:
    first = task(cases, table).identity()
    assert task(cases[1:], table).identity() != first
    turned = LabelTable.from_names({"spinal_cord": 1, "parotid_gland_left": 2, "parotid_gland_right": 3})
    assert task(cases, turned).identity() != first


def test_a_scan_smaller_than_a_patch_lies_in_air(cases: list[TrainingCase], table: LabelTable) -> None:
    seen: list[Tensor] = []

    class Looks(Told):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x)

    shape = [n + 4 for n in cases[0].hu.shape]
    task(cases, table, patch_size=shape).validate(Looks(), 5)
    assert all(float(x[..., 0, 0, 0].max()) == -1 for x in seen)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("UNet", {"spatial_dims": 3, "in_channels": 1, "channels": [4, 8, 8], "strides": [2, 2]}, "18 x 18 x 18"),
        ("SegResNet", {"spatial_dims": 3, "in_channels": 2, "init_filters": 8}, "does not take one channel"),
        (
            "DynUNet",
            {
                "spatial_dims": 3,
                "in_channels": 1,
                "kernel_size": [3, 3, 3],
                "strides": [1, 2, 3],
                "upsample_kernel_size": [2, 3],
                "filters": [4, 8, 8],
                "deep_supervision": True,
                "deep_supr_num": 1,
            },
            r"gives \(1, 2, 4, 18, 18, 18\)",
        ),
    ],
)
def test_a_network_that_does_not_take_the_patches_is_refused_before_data_are_read(
    cases: list[TrainingCase], table: LabelTable, name: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"Network {name} .*({said})"):
        task(cases, table, network={"name": name, "options": options}, patch_size=[18, 18, 18]).build()


class AsksForANumber(nn.Sequential):
    """As SwinUNETR does when it is built, which the meta device refuses."""

    def __init__(self, out_channels: int) -> None:
        super().__init__(nn.Conv3d(1, out_channels, int(torch.linspace(1, 3, 3)[-1].item()), padding=1))


def test_what_only_the_meta_device_cannot_do_is_no_fault(
    cases: list[TrainingCase], table: LabelTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "Asks", AsksForANumber)
    assert isinstance(task(cases, table, network={"name": "Asks"}).build(), AsksForANumber)


def test_a_network_of_monai_passes(cases: list[TrainingCase], table: LabelTable) -> None:
    options = {"spatial_dims": 3, "in_channels": 1, "channels": [4, 8, 8], "strides": [2, 2]}
    network = task(cases, table, network={"name": "UNet", "options": options}).build()
    assert next(network.parameters()).device.type == "cpu"


def test_a_patch_that_does_not_divide_is_refused(cases: list[TrainingCase], table: LabelTable) -> None:
    with pytest.raises(ConfigError, match=r"patch_size: 16 x 15 x 16 does not divide by 2"):
        task(cases, table, patch_size=[16, 15, 16]).build()


def test_corrected_contours_are_other_data(cases: list[TrainingCase], table: LabelTable) -> None:
    """Of the same names: the card of a run that went on with them would vouch for what was learned before."""
    corrected = [replace(cases[0], labels=np.roll(cases[0].labels, 1, axis=0)), *cases[1:]]
    first, then = (task(each, table).identity() for each in (cases, corrected))
    assert [key for key in first if first[key] != then[key]] == ["scans or labels of the training cases"]
