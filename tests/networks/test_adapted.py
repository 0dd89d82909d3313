"""Foreign networks behind our seam: axes, scale, mirror images, folds, regions, merged parts."""

from __future__ import annotations

from itertools import product

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.adapted import Adapted, Merged, Orientation, regions_to_logits
from medseg.networks.catalogue import build_network
from tests.phantoms import ORIENTATIONS


class Ramp(nn.Module):
    """Logits that know where they are: channel c is the input plus c times the index along the first axis."""

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.arange(x.shape[2], dtype=x.dtype).reshape(1, 1, -1, 1, 1)
        return torch.cat([x, x + ramp, x + 2 * ramp], 1)


IMAGE = torch.randn(1, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_axes_are_turned_as_nibabel_turns_them_and_back(codes: str) -> None:
    way = Orientation(codes)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    expected = nib.apply_orientation(IMAGE[0, 0].numpy(), turn)
    np.testing.assert_array_equal(way.there(IMAGE)[0, 0], expected)
    assert torch.equal(way.back(way.there(IMAGE)), IMAGE)


@pytest.mark.parametrize("codes", ["RAR", "RA", "XYZ", "RASL"])
def test_other_codes_are_refused(codes: str) -> None:
    with pytest.raises(ConfigError, match="not one of the 48"):
        Orientation(codes)


def test_slices_of_an_lps_scan_come_first_and_grow_upwards() -> None:
    out = Adapted([Ramp()], orientation="SPL")(IMAGE)
    along = torch.arange(5.0).expand(3, 4, 5)
    torch.testing.assert_close(out[0, 1] - out[0, 0], along)
    downwards = Adapted([Ramp()], orientation="IPL")(IMAGE)
    torch.testing.assert_close(downwards[0, 1] - downwards[0, 0], along.flip(2))


def test_scale_shift_and_clip() -> None:
    out = Adapted([Ramp()], scale=2.0, shift=0.5, clip=(-0.5, 1.0))(IMAGE)
    torch.testing.assert_close(out[0, 0], IMAGE[0, 0].clamp(-0.5, 1.0) * 2 + 0.5)


def test_the_mean_of_all_mirror_images_and_folds() -> None:
    class Shifted(Ramp):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 6

    out = Adapted([Ramp(), Shifted()], mirror_axes=[0, 1, 2])(IMAGE)
    ramp = torch.arange(3.0)
    mean = (ramp + ramp.flip(0)) / 2
    torch.testing.assert_close(out[0, 2], IMAGE[0, 0] + 3 + 2 * mean[:, None, None].expand(3, 4, 5))


def test_mirror_images_are_of_the_networks_own_axes() -> None:
    out = Adapted([Ramp()], orientation="SPL", mirror_axes=[1])(IMAGE)  # rows: the ramp runs along slices, and stays
    torch.testing.assert_close((out[0, 1] - out[0, 0])[0, 0], torch.arange(5.0))


def test_regions_become_labels_the_last_likely_one_wins() -> None:
    values = [-2.0, -0.5, 0.5, 2.0]
    for logits in product(values, repeat=3):
        regions = torch.tensor(logits).reshape(1, 3, 1)
        positive = [n for n, value in enumerate(logits) if value > 0]
        assert int(regions_to_logits(regions).argmax(1)) == (positive[-1] + 1 if positive else 0)


def test_one_regions_probability_is_its_sigmoid() -> None:
    region = torch.linspace(-3, 3, 7).reshape(1, 1, 7)
    torch.testing.assert_close(regions_to_logits(region).softmax(1)[:, 1:], region.sigmoid())


def test_channels_are_put_in_our_order() -> None:
    out = Adapted([Ramp()], channels=[0, 2, 1])(IMAGE)
    torch.testing.assert_close(out, Ramp()(IMAGE)[:, [0, 2, 1]])


class Constant(nn.Module):
    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor(self.logits).reshape(1, -1, 1, 1, 1).expand(1, -1, *x.shape[2:])


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        ((9, 8, 7), (1, 0), 0),
        ((9, 8, 10), (5, 0), 2),
        ((9, 8, 7), (0, 1), 3),
        ((0, 0, 2), (0, 3), 3),
        ((0, 4, 2), (0, 3), 1),
    ],
)
def test_merged_parts_decide_alone_and_the_surer_one_wins(
    first: tuple[float, ...], second: tuple[float, ...], winner: int
) -> None:
    out = Merged([Constant(*first), Constant(*second)])(IMAGE)
    assert out.shape == (1, 4, 3, 4, 5)
    assert (out.argmax(1) == winner).all()
    turned = Merged([Constant(*first), Constant(*second)], channels=[0, 3, 1, 2])(IMAGE)
    assert (turned.argmax(1) == [0, 3, 1, 2].index(winner)).all()


def test_the_catalogue_builds_folds_and_parts() -> None:
    unet = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "features": [2, 2, 2, 2, 2, 2]}
    one = {"network": "BasicUNet", "options": unet, "count": 2, "orientation": "SPL"}
    merged = build_network("Merged", {"parts": [one, one | {"count": 1}], "deep_supervision": 0})
    assert {name.split(".upcat")[0].split(".conv")[0] for name, _ in merged.named_parameters()} >= {
        "parts.0.members.1",
        "parts.1.members.0",
    }


@pytest.mark.parametrize("wrong", [{"head": "tanh"}, {"mirror_axes": [3]}, {"count": 0}, {"orientation": "XYZ"}])
def test_wrong_options_are_config_errors(wrong: dict[str, object]) -> None:
    unet = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "features": [2, 2, 2, 2, 2, 2]}
    with pytest.raises(ConfigError):
        build_network("Adapted", {"network": "BasicUNet", "options": unet} | wrong)
