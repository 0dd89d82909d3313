"""Streaming windows against MONAI's sliding window: the same logits, in pieces that own every cell once."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers.inferer import SlidingWindowInferer
from monai.inferers.utils import sliding_window_inference
from scipy import ndimage
from torch import Tensor, nn

from medseg.errors import Cancelled, ConfigError
from medseg.imaging.volume import Array
from medseg.inference.inferer import StreamingInferer
from medseg.inference.streaming import columns, count_visits, stream_logits
from medseg.inference.windows import Windows, gaussian_weights
from medseg.preprocess.blocks import LogitBlock
from tests.inference.whole import gather

SHAPES = [(20, 17, 41), (4, 5, 3), (8, 8, 8), (1, 12, 30), (9, 9, 9), (33, 8, 7)]


def network(classes: int = 4) -> nn.Module:
    """Convolutions: what a window says of a voxel depends on its place in the window."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, classes, 3, padding=1)).eval()


def scan(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(1).uniform(-1, 3, shape).astype(np.float32)


def by_monai(net: nn.Module, image: Array, window: tuple[int, int, int], overlap: float) -> Array:
    with torch.no_grad():
        out = sliding_window_inference(
            torch.from_numpy(image)[None, None], window, 1, net, overlap=overlap, mode="gaussian", cval=-1.0
        )
    assert isinstance(out, Tensor)
    return np.asarray(out[0].numpy())


def streamed(net: nn.Module, image: Array, windows: Windows, parts: tuple[int, int] = (1, 1)) -> list[LogitBlock]:
    with torch.no_grad():
        return list(stream_logits(net, image[None], windows, cuts=columns(image.shape, parts)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.6])
def test_the_logits_are_those_of_monai(shape: tuple[int, int, int], overlap: float) -> None:
    net, image = network(), scan(shape)
    blocks = streamed(net, image, Windows.over(shape, (8, 9, 8), overlap))
    np.testing.assert_allclose(gather(blocks, shape), by_monai(net, image, (8, 9, 8), overlap), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_windows_that_count_alike_are_monais_default(shape: tuple[int, int, int]) -> None:
    net, image = network(), scan(shape)
    windows = replace(Windows.over(shape, (8, 9, 8), 0.4), blend="constant")
    with torch.no_grad():
        theirs = sliding_window_inference(
            torch.from_numpy(image)[None, None], (8, 9, 8), 1, net, overlap=0.4, cval=-1.0
        )
    assert isinstance(theirs, Tensor)
    np.testing.assert_allclose(gather(streamed(net, image, windows), shape), theirs[0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_gpu_without_room_gets_smaller_portions() -> None:
    net, image, sizes = network(), scan((20, 17, 41)), []

    def crowded(tiles: Tensor) -> Tensor:
        sizes.append(len(tiles))
        if len(tiles) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return net(tiles)

    windows = Windows.over(image.shape, (8, 9, 8), 0.4)
    with torch.no_grad():
        found = gather(stream_logits(crowded, image[None], windows, batch=8), image.shape)
    np.testing.assert_allclose(found, gather(streamed(net, image, windows), image.shape), rtol=1e-5, atol=1e-6)
    assert {2, 8} <= set(sizes)


def test_one_window_that_does_not_fit_is_an_error() -> None:
    def full(tiles: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    image = scan((20, 17, 41))
    with pytest.raises(torch.OutOfMemoryError):
        list(stream_logits(full, image[None], Windows.over(image.shape, (8, 9, 8), 0.4), batch=4))


def test_the_weights_of_a_window_are_those_of_monai() -> None:
    for size in [(64, 64, 64), (8, 9, 8), (1, 12, 30), (160, 17, 33)]:
        assert torch.equal(gaussian_weights(size), compute_importance_map(size, mode="gaussian", sigma_scale=0.125))


@pytest.mark.parametrize("size", [(64, 64, 64), (32, 40, 64)])
def test_the_weights_of_a_window_in_another_tools_layout_are_those_of_nnunet(size: tuple[int, int, int]) -> None:
    """Its recipe: a filtered point, times ten, in float16, zeros raised to the least that is none."""
    point = np.zeros(size)
    point[tuple(side // 2 for side in size)] = 1
    theirs = ndimage.gaussian_filter(point, [side / 8 for side in size], mode="constant")
    theirs = (10 * theirs / theirs.max()).astype(np.float16)
    theirs[theirs == 0] = theirs[theirs > 0].min()
    ours = gaussian_weights(size, floor=Windows.spread((90, 90, 90), size, 0.5, "LPS").floor)
    # Their point lies half a voxel beside the middle.
    there, middle = theirs[1:, 1:, 1:], (ours[1:, 1:, 1:] * ours[:-1, :-1, :-1]).sqrt().numpy()
    near = there > 1e-3
    np.testing.assert_allclose(middle[near] / middle.max(), there[near] / 10, rtol=0.3)
    assert float(ours.min() / ours.max()) == pytest.approx(float(theirs.min()) / 10, rel=0.05)


@pytest.mark.parametrize("batch", [2, 3, 100])
def test_windows_that_go_through_the_network_together_change_nothing(batch: int) -> None:
    net, image, sizes = network(), scan((20, 17, 41)), []
    image[:, :6] = -1.0
    windows = Windows.over(image.shape, (8, 9, 8), 0.4)

    def counted(tiles: Tensor) -> Tensor:
        sizes.append(len(tiles))
        return net(tiles)

    def labels(**how: Any) -> Array:
        with torch.no_grad():
            blocks = stream_logits(counted, image[None], windows, skip=lambda tile: bool(tile.max() <= -1), **how)
            return gather(blocks, image.shape)

    alone, shares = labels(), []
    sizes.clear()
    together = labels(batch=batch, on_window=shares.append)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert 1 < max(sizes) <= batch
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_stopping_in_the_middle_leaves_no_thread_behind() -> None:
    net, image = network(), scan((20, 17, 41))

    def stop(share: float) -> None:
        if share > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled), torch.no_grad():
        list(stream_logits(net, image[None], Windows.over(image.shape, (8, 9, 8), 0.4), on_window=stop))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("medseg-ahead")]


@pytest.mark.parametrize("parts", [(2, 1), (1, 3), (3, 2), (99, 99)])
def test_cutting_the_plane_changes_nothing(parts: tuple[int, int]) -> None:
    net, image = network(), scan((20, 17, 21))
    windows = Windows.over(image.shape, (8, 8, 8), 0.4)
    whole = gather(streamed(net, image, windows), image.shape)
    np.testing.assert_allclose(gather(streamed(net, image, windows, parts), image.shape), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [(1, 1), (2, 3)])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_cell_has_one_owner_that_holds_both_its_voxels(
    shape: tuple[int, int, int], parts: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medseg.inference.streaming.BLOCK_VALUES", 4 * shape[0] * shape[1] * 3)
    owners = np.zeros(shape, dtype=int)
    for block in streamed(network(), scan(shape), Windows.over(shape, (8, 8, 8), 0.3), parts):
        owners[block.cells] += 1
        for cells, start, size, length in zip(block.cells, block.start, block.logits.shape[1:], shape, strict=True):
            assert start <= cells.start
            assert start + size >= min(cells.stop + 1, length)
    assert (owners == 1).all()


def test_sums_hold_no_more_than_one_windows_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    zeros = torch.zeros

    def spy(*size: object, **settings: object) -> Tensor:
        made.append(tuple(size[0]))  # type: ignore[arg-type]
        return zeros(*size, **settings)  # type: ignore[arg-type,no-any-return,call-overload]

    monkeypatch.setattr("medseg.inference.streaming.torch.zeros", spy)
    streamed(network(), scan((10, 10, 200)), Windows.over((10, 10, 200), (8, 8, 8), 0.3))
    assert max(math.prod(size) for size in made) == 4 * 10 * 10 * 8


def test_skipped_windows_are_background_and_cost_nothing() -> None:
    seen: list[int] = []

    def predictor(tile: Tensor) -> Tensor:
        seen.append(1)
        return torch.cat([tile * 0 - 1, tile * 0 + 1], dim=1)

    image = np.full((1, 8, 8, 40), -1.0, np.float32)
    image[..., 20:23] = 1.0
    windows = Windows.over(image.shape[1:], (8, 8, 8), 0.0)
    blocks = list(stream_logits(predictor, image, windows, skip=lambda tile: bool(tile.max() <= -1)))
    labels = gather(blocks, (8, 8, 40)).argmax(axis=0)
    assert len(seen) == 1
    assert labels[..., 16:24].all()
    assert not labels[..., :16].any()
    assert not labels[..., 24:].any()


def test_visits_are_counted_before_they_happen() -> None:
    windows, cuts = Windows.over((20, 17, 21), (8, 8, 8), 0.4), columns((20, 17, 21), (2, 2))
    shares: list[float] = []
    list(stream_logits(network(), scan((1, 20, 17, 21)), windows, cuts=cuts, on_window=shares.append))
    assert len(shares) == count_visits(windows, (20, 17, 21), cuts) > len(windows)
    np.testing.assert_allclose(shares, np.arange(1, len(shares) + 1) / len(shares))


@pytest.mark.parametrize("batch", [1, 2])
def test_the_inferer_labels_as_monais_does(batch: int) -> None:
    net, image = network(), torch.from_numpy(scan((batch, 1, 23, 18, 31)))
    with torch.no_grad():
        logits = SlidingWindowInferer((9, 9, 9), 1, 0.25, mode="gaussian")(image, net)
    assert isinstance(logits, Tensor)
    labels = StreamingInferer((9, 9, 9), 0.25, parts=(2, 1))(image, net)
    assert labels.shape == image.shape
    assert (labels == logits.argmax(1, keepdim=True)).float().mean() >= 0.9999


def test_the_inferer_takes_several_channels() -> None:
    torch.manual_seed(0)
    net, image = nn.Conv3d(2, 3, 3, padding=1), torch.randn(1, 2, 12, 11, 10)
    with torch.no_grad():
        logits = SlidingWindowInferer((6, 6, 6), 1, 0.5, mode="gaussian")(image, net)
    assert isinstance(logits, Tensor)
    assert (StreamingInferer((6, 6, 6), 0.5)(image, net) == logits.argmax(1, keepdim=True)).float().mean() >= 0.9999


@pytest.mark.parametrize("settings", [{"overlap": 1.0}, {"overlap": -0.1}, {"parts": (0, 1)}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        StreamingInferer((8, 8, 8), **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"\[B, C, i, j, k\]"):
        StreamingInferer((8, 8, 8))(torch.zeros(3, 3), network())
