"""Mirror images: the mean over all that count, and none where the answer is sure without them."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from medseg.inference.streaming import stream_logits
from medseg.inference.twins import COUNTS, SURE, Twin, mean_of_twins, twins_of
from medseg.inference.windows import Windows, cut
from medseg.labels import LabelTable
from medseg.models.card import InputSpec
from tests.inference.whole import gather

LABELS = LabelTable.from_names({"eye_right": 1, "cord": 2, "eye_left": 3})


def spec(**settings: object) -> InputSpec:
    plain = {"spacing_mm": (1, 1, 1), "window_hu": (-300, 900), "patch_size": (8, 8, 8), "overlap_ratio": 0.5}
    return InputSpec.model_validate(plain | settings)


class Network:
    """Logits of a window: background, and an organ where the image is bright, more so towards higher i, j and k."""

    def __init__(self) -> None:
        self.windows = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.windows += len(x)
        i, j, k = (torch.linspace(0, 1, side) for side in x.shape[2:])
        ramp = i[:, None, None] + 2 * j[:, None] + 4 * k
        return torch.cat([torch.zeros_like(x), x + ramp * (x > 0)], dim=1)


def test_a_card_says_which_mirror_images_count() -> None:
    assert twins_of(spec(), LABELS) == ()
    assert twins_of(spec(mirror_average=True), LABELS) == (Twin((2,), (0, 3, 2, 1)),)
    assert twins_of(spec(mirror_axes=(0, 2)), LABELS) == (Twin((2,)), Twin((4,)), Twin((2, 4)))
    assert len(twins_of(spec(mirror_axes=(0, 1, 2)), LABELS)) == 7
    half = twins_of(spec(mirror_axes=(0, 1, 2), mirror_even=True), LABELS)
    assert half == (Twin((2, 3)), Twin((2, 4)), Twin((3, 4)))  # and the window itself: each axis in two of four


@pytest.mark.parametrize(
    "wrong", [{"mirror_axes": (0, 0)}, {"mirror_axes": (3,)}, {"mirror_average": True}, {"mirror_even": True}]
)
def test_a_card_that_mirrors_twice_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="mirror_axes"):
        spec(**({"mirror_axes": (0,)} | wrong))


def test_the_mean_over_all_combinations_of_axes() -> None:
    network, tiles = Network(), torch.rand(2, 1, 6, 5, 4)
    twins, shares = twins_of(spec(mirror_axes=(0, 1, 2)), LABELS), torch.ones(2, 6, 5, 4)
    refine = mean_of_twins(network, twins)
    assert refine is not None
    flips = [[axis for axis, on in zip((2, 3, 4), which, strict=True) if on] for which in product((0, 1), repeat=3)]
    whole = torch.stack([network(tiles.flip(flip)).flip(flip) for flip in flips]).mean(dim=0)
    torch.testing.assert_close(refine(tiles, network(tiles), shares), whole)


def test_windows_of_sure_background_are_seen_once_and_the_others_fully() -> None:
    network = Network()
    tiles = torch.full((3, 1, 6, 6, 6), -2 * SURE)
    tiles[1, 0, 3, 3, 3] = 1.0
    refine = mean_of_twins(network, [Twin((2,)), Twin((3,)), Twin((4,))])
    assert refine is not None
    plain = network(tiles)
    network.windows = 0
    out = refine(tiles, plain, torch.ones(3, 6, 6, 6))
    assert network.windows == 3
    assert torch.equal(out[[0, 2]], plain[[0, 2]])
    assert not torch.equal(out[1], plain[1])


def test_what_does_not_count_in_the_blend_asks_for_nothing() -> None:
    network, tiles = Network(), torch.full((1, 1, 6, 6, 6), -2 * SURE)
    tiles[0, 0, 0, 0, 0] = 1.0
    shares = torch.ones(1, 6, 6, 6)
    shares[0, 0, 0, 0] = COUNTS / 2
    plain = network(tiles)
    network.windows = 0
    for sure, seen in ((SURE, 0), (math.inf, 1)):
        refine = mean_of_twins(network, [Twin((2,))], sure)
        assert refine is not None
        refine(tiles, plain, shares)
        assert network.windows == seen


def test_where_no_voxel_counts_all_images_are_seen() -> None:
    """Windows that overlap by nine tenths of themselves share every voxel with so many others."""
    network, tiles = Network(), torch.full((1, 1, 6, 6, 6), -2 * SURE)
    refine = mean_of_twins(network, [Twin((2,))])
    assert refine is not None
    refine(tiles, network(tiles), torch.full((1, 6, 6, 6), COUNTS / 2))
    assert network.windows == 2


def test_a_doubt_that_one_mirror_image_removes_ends_there() -> None:
    seen: list[Tensor] = []

    def contradicting(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.cat([0 * x, x - 4 * SURE], dim=1)

    tiles, plain = torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 2, 4, 4, 4)
    refine = mean_of_twins(contradicting, [Twin((2,)), Twin((3,)), Twin((4,))])
    assert refine is not None
    out = refine(tiles, plain, torch.ones(1, 4, 4, 4))
    assert len(seen) == 1
    assert out[0, 1].unique().tolist() == [-2 * SURE]  # the mean of 0 and -4 SURE


@pytest.mark.parametrize("shape", [(8, 8, 8), (20, 17, 9), (5, 30, 12)])
def test_shares_are_what_the_blend_counts(shape: tuple[int, int, int]) -> None:
    windows = Windows.over(shape, (8, 8, 8), 0.4)
    starts = list(product(*windows.starts))
    total = torch.zeros(shape)
    along = (torch.arange(8, dtype=torch.float64) - 3.5) ** 2
    weights = torch.exp(-(along[:, None, None] + along[:, None] + along) / 2).float()  # sigma: an eighth of the window
    for start in starts:
        place, part = overlap(shape, start)
        total[place] += weights[part]
    for start in starts:
        place, part = overlap(shape, start)
        torch.testing.assert_close(windows.shares(start)[part], weights[part] / total[place])


def overlap(shape: tuple[int, int, int], start: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    ends = [(max(0, at), min(n, at + 8), at) for n, at in zip(shape, start, strict=True)]
    return tuple(slice(a, b) for a, b, _ in ends), tuple(slice(a - at, b - at) for a, b, at in ends)


def test_in_a_scan_the_labels_are_those_of_mirroring_everything() -> None:
    """An organ in one corner: elsewhere nothing is mirrored, and the mask is the same."""
    image = np.full((40, 16, 40), -2 * SURE, np.float32)
    image[4:9, 4:9, 4:9] = np.random.default_rng(0).uniform(-2, 3, (5, 5, 5))
    windows = Windows.over(image.shape, (8, 8, 8), 0.5)
    labels, counts = [], []
    for sure in (SURE, math.inf):
        network = Network()
        refine = mean_of_twins(network, twins_of(spec(mirror_axes=(0, 1, 2)), LABELS), sure)
        blocks = stream_logits(network, image[None], windows, refine=refine)
        labels.append(gather(blocks, image.shape).argmax(axis=0))
        counts.append(network.windows)
    assert labels[0].any()
    assert np.array_equal(*labels)
    assert counts[1] == 8 * len(windows)
    assert counts[0] < counts[1] / 3


def test_a_window_beyond_the_scan_still_has_shares() -> None:
    windows = Windows.over((3, 8, 8), (8, 8, 8), 0.5)
    start = (windows.starts[0][0], 0, 0)
    assert cut(np.zeros((1, 3, 8, 8), np.float32), start, windows.size).shape == (1, 8, 8, 8)
    torch.testing.assert_close(windows.shares(start), torch.ones(8, 8, 8))
