"""Sliding windows: counted, cancelled, blended without a seam, and refused when not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg.errors import Cancelled, ModelError
from medseg.imaging.volume import Array
from medseg.inference.backends.torch_backend import TorchPredictor
from medseg.inference.predict import checked, predict_blocks
from medseg.inference.streaming import Predict
from medseg.inference.twins import Twin, mean_of_twins
from medseg.inference.windows import AIR, Windows, reached, widened
from medseg.models.card import InputSpec
from tests.inference.whole import gather


class Pointwise(nn.Module):
    """Logits (-x, x, 2x) voxel by voxel; remembers the windows that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return torch.cat([-x, x, 2 * x], dim=1)


def predict_logits(
    network: Predict,
    image: Array,
    twins: Sequence[Twin] = (),
    *,
    window: tuple[int, int, int],
    overlap: float,
    spread: str | None = None,
    **settings: Any,
) -> Array:
    spec = InputSpec(
        spacing_mm=(1, 1, 1), window_hu=(-300, 900), patch_size=window, overlap_ratio=overlap, spread=spread
    )
    refine = mean_of_twins(network, twins)
    return gather(predict_blocks(checked(network), image, spec, refine=refine, **settings), image.shape)


def scan(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 3, shape).astype(np.float32)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 8, 8), (3, 30, 8), (17, 23, 11), (5, 4, 3), (1, 1, 40), (24, 16, 12)])
def test_windows_are_counted_before_they_run(shape: tuple[int, int, int], overlap: float) -> None:
    network, shares = Pointwise(), []
    predict_logits(network, scan(shape), window=(8, 8, 6), overlap=overlap, on_window=shares.append)
    assert len(network.shapes) == len(Windows.over(shape, (8, 8, 6), overlap))
    assert set(network.shapes) == {(1, 1, 8, 8, 6)}
    np.testing.assert_allclose(shares, np.arange(1, len(shares) + 1) / len(shares))


@pytest.mark.parametrize("within", [None, (slice(9, 12), slice(0, 2), slice(20, 24))])
def test_windows_are_filled_with_the_scan_before_anything_else(within: Any) -> None:
    """A body or a region smaller than a window once stood in a wall of what lies beyond the scan."""
    image = np.full((24, 20, 30), -1.0, np.float32)
    image[9:12, 8:11, 14:17] = 1.0
    seen: list[Tensor] = []

    def network(tiles: Tensor) -> Tensor:
        seen.append(tiles)
        return torch.cat([-tiles, tiles], dim=1)

    spec = InputSpec(
        spacing_mm=(1, 1, 1), window_hu=(-300, 900), patch_size=(16, 20, 16), overlap_ratio=0.3, beyond=5.0
    )
    blocks = list(predict_blocks(network, image, spec, within=within))
    assert sum(float((tile == 5.0).sum()) for tile in seen) == 0
    assert blocks
    if within is None:
        assert seen


@pytest.mark.parametrize(
    ("side", "least", "length", "wide"),
    [
        (slice(4, 8), 3, 20, slice(4, 8)),
        (slice(4, 8), 10, 20, slice(1, 11)),
        (slice(0, 2), 10, 20, slice(0, 10)),
        (slice(18, 20), 10, 20, slice(10, 20)),
        (slice(2, 4), 30, 20, slice(0, 20)),
    ],
)
def test_a_box_is_widened_within_the_scan(side: slice, least: int, length: int, wide: slice) -> None:
    assert widened((side,) * 3, (least,) * 3, (length,) * 3) == (wide,) * 3


@pytest.mark.parametrize(
    ("side", "count", "covered"),
    [
        (slice(30, 36), 1, slice(23, 43)),  # one window sees air around
        (slice(30, 50), 1, slice(30, 50)),
        (slice(30, 51), 2, slice(23, 58)),  # two would reach 36 voxels; 21 and 8 of air on both sides are 37
        (slice(30, 64), 2, slice(29, 65)),
        (slice(0, 80), 5, slice(0, 80)),
    ],
)
def test_fitted_windows_are_as_few_as_the_body_needs(side: slice, count: int, covered: slice) -> None:
    spec = InputSpec(
        spacing_mm=(1, 1, 1), window_hu=(-300, 900), patch_size=(20, 20, 20), overlap_ratio=0.2, fitted=True
    )
    box = reached((side,) * 3, spec, (80,) * 3)
    windows = Windows.of(spec, [s.stop - s.start for s in box])
    assert len(windows.starts[0]) == count
    assert box[0].start <= side.start
    assert box[0].stop >= side.stop
    assert abs(box[0].start - covered.start) <= 1
    assert abs(box[0].stop - covered.stop) <= 1
    gaps = np.diff(windows.starts[0])
    assert gaps.size == 0 or (np.ptp(gaps) <= 1 and gaps.max() <= 16)


def test_fitted_windows_lie_over_the_body_alone() -> None:
    image = np.full((60, 60, 60), 1.0, np.float32)  # a couch, wherever one looks
    network = Pointwise()
    spec = InputSpec(
        spacing_mm=(1, 1, 1), window_hu=(-300, 900), patch_size=(20, 20, 20), overlap_ratio=0.2, fitted=True
    )
    body = (slice(10, 28), slice(20, 40), slice(0, 30))
    logits = gather(predict_blocks(network, image, spec, body=body), image.shape)
    assert len(network.shapes) == 2
    assert (logits.argmax(axis=0)[body] == 2).all()
    assert (logits.argmax(axis=0)[40:] == 0).all()


@pytest.mark.parametrize("shape", [(20, 17, 9), (4, 5, 3), (8, 8, 8), (1, 12, 30)])
def test_blending_leaves_no_seam(shape: tuple[int, int, int]) -> None:
    image = scan(shape)
    logits = predict_logits(Pointwise(), image, window=(8, 8, 8), overlap=0.3)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, np.stack([-image, image, 2 * image]), atol=2e-5)


def test_bf16_stays_within_its_rounding() -> None:
    image = scan((10, 9, 8))
    network = TorchPredictor(nn.Conv3d(1, 2, 1).requires_grad_(False).apply(_identity), "bf16")
    logits = predict_logits(network, image, window=(8, 8, 8), overlap=0.3)
    np.testing.assert_allclose(logits[0], image, atol=0.02)
    assert logits.dtype == np.float32


def _identity(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Conv3d)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def test_beyond_a_tiny_scan_lies_air() -> None:
    class Darkest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.amin(dim=(2, 3, 4), keepdim=True).expand_as(x).repeat(1, 2, 1, 1, 1)

    logits = predict_logits(Darkest(), np.full((3, 3, 3), 2.0, np.float32), window=(8, 8, 8), overlap=0.3)
    np.testing.assert_array_equal(logits, AIR)


def test_raising_while_windows_run_cancels() -> None:
    network = Pointwise()

    def stop(share: float) -> None:
        if share > 0.2:
            raise Cancelled

    with pytest.raises(Cancelled):
        predict_logits(network, scan((24, 24, 24)), window=(8, 8, 8), overlap=0.0, on_window=stop)
    assert len(network.shapes) == math.floor(27 * 0.2) + 1


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(poison: float) -> None:
    class Poisoned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out = torch.cat([x, x], dim=1)
            out[0, 1, 0, 0, 0] = poison
            return out

    with pytest.raises(ModelError, match="not finite"):
        predict_logits(Poisoned(), scan((9, 9, 9)), window=(8, 8, 8), overlap=0.3)


class Lopsided(nn.Module):
    """Channels 1 and 2 grow towards opposite sides, unevenly: no symmetry of its own."""

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, x.shape[2])[:, None, None]
        return torch.cat([0 * x, x * ramp, 2 * x * (1 - ramp) + 0.1], dim=1)


def test_the_mean_with_the_mirror_image_treats_both_sides_alike() -> None:
    image, settings = scan((12, 8, 8)), {"window": (12, 8, 8), "overlap": 0.0}
    swap = [0, 2, 1]
    twins = [Twin((2,), tuple(swap))]
    here = predict_logits(Lopsided(), image, twins, **settings)
    there = predict_logits(Lopsided(), image[::-1], twins, **settings)
    np.testing.assert_allclose(there, here[swap][:, ::-1], rtol=1e-5, atol=1e-6)
    alone = predict_logits(Lopsided(), image, **settings)
    assert np.abs(alone - here).max() > 0.1


def test_another_tools_layout_covers_air_as_well() -> None:
    image = np.full((20, 20, 20), AIR, np.float32)
    image[9:11, 9:11, 9:11] = 1.0
    ours, theirs = Pointwise(), Pointwise()
    predict_logits(ours, image, window=(8, 8, 8), overlap=0.5)
    predict_logits(theirs, image, window=(8, 8, 8), overlap=0.5, spread="LPS")
    assert len(ours.shapes) < len(theirs.shapes) == 4**3


@pytest.mark.parametrize(
    ("length", "towards", "starts"),
    [
        (20, "RAS", (0, 4, 8, 12)),
        (21, "RAS", (0, 3, 6, 10, 13)),  # 3.25 apart: 6.5 and 9.75 are rounded, to even where in the middle
        (21, "LPS", (0, 3, 7, 10, 13)),  # counted from the other end, 6.5 falls on the other side
        (8, "LPS", (0,)),
        (5, "RAS", (-1,)),
        (5, "LPS", (-2,)),
    ],
)
def test_windows_spread_as_nnunet_counts_them(length: int, towards: str, starts: tuple[int, ...]) -> None:
    assert Windows.spread((length, 9, 9), (8, 8, 8), 0.5, towards).starts[0] == starts
