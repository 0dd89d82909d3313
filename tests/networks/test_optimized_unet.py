"""Optimized3DUNet: shapes for every option, and a voxel that does not depend on the window."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.catalogue import build_network
from medseg.networks.optimized_unet import Optimized3DUNet


def random_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """Normalisation as after training: means and variances that are not 0 and 1."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def scan(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 1, *sizes, generator=torch.Generator().manual_seed(seed))


def parameters(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.parameters())


def test_the_specifications_network_has_width_64_and_five_levels() -> None:
    with torch.device("meta"):
        network = Optimized3DUNet()
    assert network.stem.conv1.weight.shape == (64, 1, 3, 3, 3)
    assert isinstance(network.pool, nn.MaxPool3d)
    assert [block.conv1.out_channels for block in network.down] == [128, 256, 512, 512]
    assert network.stride == 16


@pytest.mark.parametrize(
    "options",
    [
        {"width": 4, "depth": 3},
        {"width": 4, "depth": 1},
        {"channels": [3, 5, 6]},
        {"channels": [4, 6], "residual": True},
        {"channels": [4, 6, 8], "attention": True},
        {"channels": [1, 2], "attention": True},
        {"channels": [4, 6], "norm": "instance"},
        {"channels": [4, 12], "norm": "group"},
        {"channels": [4, 6, 8], "deep_supervision": 2, "residual": True, "attention": True},
        {"channels": [4, 6, 8], "stem_convs": 1, "decoder_convs": 1},
        {"channels": [4, 6, 8], "added_skips": 2, "attention": True, "residual": True},
    ],
    ids=str,
)
def test_every_option_keeps_the_shape(options: dict[str, Any]) -> None:
    network = Optimized3DUNet(1, 3, **options).eval()
    with torch.inference_mode():
        out = network(scan(8, 12, 16))
    assert isinstance(out, Tensor)
    assert out.shape == (1, 3, 8, 12, 16)
    assert torch.isfinite(out).all()


def test_width_doubles_up_to_its_limit() -> None:
    network = Optimized3DUNet(width=2, depth=4, max_width=6)
    assert [network.stem.conv1.out_channels, *(block.conv1.out_channels for block in network.down)] == [2, 4, 6, 6]
    assert network.stride == 8


def test_options_add_what_they_say() -> None:
    plain = parameters(Optimized3DUNet(channels=[4, 6]))
    assert parameters(Optimized3DUNet(channels=[4, 6], residual=True)) == plain + 1 * 4 + 4 * 6 + 8 * 4
    assert parameters(Optimized3DUNet(channels=[4, 6], attention=True)) == plain + 2 * (4 * 2 + 2) + 3
    assert parameters(Optimized3DUNet(channels=[4, 6], deep_supervision=1)) == plain + 6 * 2 + 2


def test_cuts_save_the_convolutions_that_they_name() -> None:
    plain = parameters(Optimized3DUNet(channels=[4, 6, 8]))
    norm = 2 * 4
    assert parameters(Optimized3DUNet(channels=[4, 6, 8], stem_convs=1)) == plain - 4 * 4 * 27 - norm
    one = Optimized3DUNet(channels=[4, 6, 8], decoder_convs=1)
    assert parameters(one) == plain - (4 * 4 + 6 * 6) * 27 - norm - 2 * 6
    added = Optimized3DUNet(channels=[4, 6, 8], added_skips=1)
    assert parameters(added) == plain - 4 * 4 * 27
    assert [block.add for block in added.up] == [False, True]  # the finest one


def test_deep_heads_speak_in_training_alone() -> None:
    network = Optimized3DUNet(1, 3, channels=[4, 6, 8], deep_supervision=2)
    heads = network.train()(scan(8, 8, 16))
    assert [tuple(head.shape) for head in heads] == [(1, 3, 8, 8, 16), (1, 3, 4, 4, 8), (1, 3, 2, 2, 4)]
    assert isinstance(network.eval()(scan(8, 8, 16)), Tensor)


def test_attention_weighs_the_skip_between_nothing_and_all() -> None:
    gate = Optimized3DUNet(channels=[4, 6], attention=True).up[0].gate
    skip, coarse = torch.ones(1, 4, 2, 2, 2), torch.randn(1, 4, 2, 2, 2)
    out = gate(skip, coarse)
    assert ((out > 0) & (out < 1)).all()


def difference_in_the_middle(norm: str) -> tuple[float, float]:
    """Largest change of a middle voxel and of a border voxel between a large and a small window."""
    network = random_statistics(Optimized3DUNet(channels=[2, 4], norm=norm))
    image = scan(40, 40, 40)
    with torch.inference_mode():
        large, small = network(image)[..., 8:32, 8:32, 8:32], network(image[..., 8:32, 8:32, 8:32])
    change = (large - small).abs()
    return float(change[..., 10:14, 10:14, 10:14].max()), float(change.max())


def test_with_batch_norm_a_voxel_does_not_depend_on_the_window() -> None:
    middle, border = difference_in_the_middle("batch")
    assert middle < 1e-5 < border


def test_with_instance_norm_it_does() -> None:
    assert difference_in_the_middle("instance")[0] > 1e-3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"norm": "layer"}, "no norm 'layer'"),
        ({"channels": []}, "one level at least"),
        ({"depth": 0}, "one level at least"),
        ({"channels": [4, 0]}, "positive channels"),
        ({"channels": [4, 6], "deep_supervision": 2}, "0 to 1 deep heads, not 2"),
        ({"channels": [4, 6], "deep_supervision": -1}, "not -1"),
        ({"channels": [4, 6], "stem_convs": 3}, "are 1 or 2, not 3 and 2"),
        ({"channels": [4, 6], "added_skips": 2}, "0 to 1 skips to add, not 2"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_network("Optimized3DUNet", options)


def test_the_catalogue_builds_by_name() -> None:
    network = build_network("Optimized3DUNet", {"channels": [4, 6], "out_channels": 5})
    assert network.head.out_channels == 5


def test_the_catalogue_names_what_it_has() -> None:
    with pytest.raises(ConfigError, match=r"Unknown network 'ResNet'.*Optimized3DUNet"):
        build_network("ResNet", {})


def test_the_catalogue_names_an_unknown_option() -> None:
    with pytest.raises(ConfigError, match=r"Network Optimized3DUNet: no option wdith; it has: in_channels, .*width, "):
        build_network("Optimized3DUNet", {"wdith": 8})


def one_step(
    recompute: int, norm: str, half: bool, compiled: bool = False
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients and state after a step in training mode; the same start for every `recompute`."""
    torch.manual_seed(3)
    network = Optimized3DUNet(
        channels=[4, 6, 8], norm=norm, residual=True, attention=True, deep_supervision=1, recompute=recompute
    ).train()
    model = torch.compile(network, backend="eager") if compiled else network
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = sum(head.float().square().mean() for head in model(scan(16, 16, 16)))
    assert isinstance(loss, Tensor)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    return loss.detach(), gradients, network.state_dict()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("recompute", [1, 3])
def test_recomputed_levels_learn_the_same(recompute: int, norm: str, half: bool) -> None:
    """Gradients, and the running means: a batch that is looked at twice counts once."""
    loss, gradients, state = one_step(0, norm, half)
    other_loss, other_gradients, other_state = one_step(recompute, norm, half)
    assert torch.equal(loss, other_loss)
    assert gradients.keys() == other_gradients.keys()
    assert all(torch.equal(gradients[name], other_gradients[name]) for name in gradients)
    assert all(torch.equal(state[name], other_state[name]) for name in state)


@pytest.mark.filterwarnings("ignore")  # torch's own, about tensors between two graphs
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_recomputed_levels_can_be_compiled(norm: str) -> None:
    """Followed by torch.compile as any network, without its compiler, which would take minutes."""
    loss, gradients, state = one_step(2, norm, half=False)
    other_loss, other_gradients, other_state = one_step(2, norm, half=False, compiled=True)
    torch.testing.assert_close(other_loss, loss)
    assert gradients.keys() == other_gradients.keys()
    torch.testing.assert_close(other_gradients, gradients)
    torch.testing.assert_close(dict(other_state), dict(state))


def test_recomputed_levels_keep_less() -> None:
    def kept(recompute: int) -> int:
        network = Optimized3DUNet(channels=[8, 8, 8], recompute=recompute).train()
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network(scan(32, 32, 32))
        return sum(sizes.values())

    assert kept(1) < 0.6 * kept(0)


def test_more_levels_than_there_are_cannot_be_recomputed() -> None:
    with pytest.raises(ConfigError, match="2 levels have 0 to 2 to recompute, not 3"):
        Optimized3DUNet(channels=[4, 6], recompute=3)
