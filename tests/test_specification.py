"""The specification's calls on the training side, as it writes them: shapes, types and effect."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.labels import LabelTable
from medseg.networks import Optimized3DUNet
from medseg.training import AutoMixedPrecision, VolumeDataLoader
from medseg.training.cases import TrainingCase
from medseg.training.config import AugmentConfig

LABELS = LabelTable.from_names({"kidney_left": 1, "kidney_right": 2})


def volume(shape: tuple[int, int, int], name: str = "a") -> TrainingCase:
    """A body that fills the volume; two small organs. Every voxel has a value of its own, modulo 200."""
    hu = (np.arange(np.prod(shape)) % 200).reshape(shape).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    labels[4:8, 4:8, 4:8], labels[-8:-4, 4:8, 4:8] = 1, 2
    places = {value: np.argwhere(labels == value) for value in (1, 2)} | {0: np.argwhere(hu > -200)}
    return TrainingCase(name, hu, labels, np.ones(3, bool), places)


def test_optimized_3d_unet() -> None:
    """DoubleConv(1, 64) stem, MaxPool3d, skips; an upper level of width 64, run here at a width for CPUs."""
    with torch.device("meta"):
        model = Optimized3DUNet()
        assert model(torch.empty(1, 1, 32, 32, 16)).shape == (1, 2, 32, 32, 16)
    assert (model.stem.conv1.in_channels, model.stem.conv1.out_channels) == (1, 64)
    assert isinstance(model.pool, nn.MaxPool3d)
    small = Optimized3DUNet(1, 3, width=4, depth=3, residual=True, attention=True, deep_supervision=2)
    heads = small(torch.randn(2, 1, 8, 8, 8))
    assert [tuple(head.shape) for head in heads] == [(2, 3, 8, 8, 8), (2, 3, 4, 4, 4), (2, 3, 2, 2, 2)]


def test_volume_data_loader_as_written() -> None:
    loader = VolumeDataLoader(batch_size=16, patch_size=(128, 128, 64), overlap_ratio=0.3)
    batch = next(iter(loader.batches([volume((40, 36, 30))], LABELS)))
    assert batch.image.shape[1:] == (1, 128, 128, 64)
    assert batch.image.dtype == torch.float32
    assert batch.labels.shape[1:] == (128, 128, 64)
    assert batch.labels.dtype == torch.int64
    assert batch.known.shape[1:] == (3,)


def test_its_patches_overlap_by_the_ratio_and_cover_the_volume() -> None:
    loader = VolumeDataLoader(batch_size=4, patch_size=(10, 10, 10), overlap_ratio=0.3, foreground_share=0)
    case = volume((24, 24, 24))
    corners = np.array(loader.grid(case)) - 5
    assert sorted({int(i) for i in corners[:, 0]}) == [0, 7, 14]
    batches = list(loader.batches([case], LABELS))
    assert [len(batch.ids) for batch in batches] == [4] * 6 + [3]
    shown = torch.cat([batch.image for batch in batches])
    organ = sum(int((batch.labels == 1).sum()) for batch in batches)
    assert len(shown) == 27
    assert organ >= int((case.labels == 1).sum())
    assert shown.min() >= -1
    assert shown.max() <= 3


def test_its_patches_are_the_volumes_own_voxels() -> None:
    case = volume((20, 20, 20))
    loader = VolumeDataLoader(1, (8, 8, 8), foreground_share=0, window_hu=(0, 200))
    wanted = {(case.hu[i : i + 8, j : j + 8, k : k + 8].tobytes()) for i, j, k in np.ndindex(13, 13, 13)}
    for batch in loader.batches([case], LABELS):
        hu = np.round((batch.image[0, 0].numpy() + 1) * 50).astype(np.int16)  # the window spans -1 ... 3
        assert hu.tobytes() in wanted


def test_half_of_its_patches_are_centred_near_organs_and_an_epoch_has_an_order_of_its_own() -> None:
    loader = VolumeDataLoader(1, (8, 8, 8), overlap_ratio=0, foreground_share=0.5, seed=3)
    case = volume((40, 40, 40))
    mixed = [bool((batch.labels > 0).any()) for batch in loader.batches([case], LABELS)]
    plain = [
        bool((batch.labels > 0).any())
        for batch in VolumeDataLoader(1, (8, 8, 8), 0, foreground_share=0).batches([case], LABELS)
    ]
    assert len(mixed) == 2 * len(plain)
    assert np.mean(mixed) > 0.4 > np.mean(plain)
    first, again, second = (list(loader.batches([case], LABELS, epoch)) for epoch in (0, 0, 1))
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a.image, b.image) for a, b in zip(first, second, strict=True))


def test_it_changes_patches_on_request_and_refuses_what_cannot_be() -> None:
    case = volume((24, 24, 24))
    loader = VolumeDataLoader(2, (16, 16, 16), augment=AugmentConfig())
    assert next(iter(loader.batches([case], LABELS))).image.shape == (2, 1, 16, 16, 16)
    with pytest.raises(ConfigError, match=r"VolumeDataLoader: overlap_ratio"):
        VolumeDataLoader(overlap_ratio=1.5)


def step(scaler: AutoMixedPrecision, value: float, weight: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss: Tensor = weight * value
    with scaler.scale_loss(loss, optimizer) as scaled:
        scaled.backward()
    optimizer.step()


def test_auto_mixed_precision_and_its_three_numbers() -> None:
    weight = nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = AutoMixedPrecision(loss_scale=128, init_scale=65536, growth_interval=2000)
    assert scaler.scale == 65536
    step(scaler, 2.0, weight, optimizer)
    assert weight.item() == pytest.approx(0.8)  # gradients have their true size again
    for _ in range(12):  # forced overflows: no step, half the scale, never below loss_scale
        step(scaler, float("inf"), weight, optimizer)
    assert weight.item() == pytest.approx(0.8)
    assert (scaler.scale, scaler.skipped_steps, scaler.good_steps) == (128, 12, 1)


def test_its_scale_doubles_after_the_growth_interval_and_stays_when_static() -> None:
    weight = nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    growing = AutoMixedPrecision(loss_scale=128, init_scale=256, growth_interval=3)
    static = AutoMixedPrecision(loss_scale=128, init_scale=None, growth_interval=3)
    for _ in range(3):
        step(growing, 1.0, weight, optimizer)
        step(static, 1.0, weight, optimizer)
    assert (growing.scale, static.scale) == (512, 128)
    step(static, float("inf"), weight, optimizer)
    assert (static.scale, static.skipped_steps) == (128, 1)
