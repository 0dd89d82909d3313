"""Shared kernels: fewer numbers stored, the same network out, and still trainable."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medseg.deploy.quantize import Quantization
from medseg.deploy.sharing import ParameterSharing, cluster
from medseg.errors import ConfigError
from medseg.inference.backends import load_network
from medseg.inference.backends.measure import relative_error
from medseg.inference.backends.onnxruntime_backend import OnnxRuntimePredictor
from medseg.inference.backends.openvino_backend import OpenVinoPredictor
from medseg.models.store import ModelPackage, load_model
from medseg.networks.shared_kernels import SharedConv3d, expand, shared_layers, written_out
from tests.inference.backends.packages import PATCH, tiny_package
from tests.inference.planted import write_package

TIED = {"stem.conv2", "down.0.conv1", "down.0.conv2", "up.0.conv.conv1", "up.0.conv.conv2"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return tiny_package(tmp_path_factory.mktemp("tiny") / "model", channels=[8, 16])


@pytest.fixture(scope="module")
def network(package: ModelPackage) -> nn.Module:
    """The tiny network with kernels that are alike, as those of trained deep layers are."""
    network, generator = load_network(package), torch.Generator().manual_seed(7)
    patterns = torch.randn(12, 3, 3, 3, generator=generator)
    patterns *= 5 / patterns.flatten(1).norm(dim=1)[:, None, None, None]  # so that channels have one norm
    for name in sorted(TIED):
        weight = network.get_submodule(name).weight.data
        drawn = patterns[torch.randint(12, weight.shape[:2], generator=generator)]
        weight.copy_(0.1 * drawn + 0.002 * torch.randn(weight.shape, generator=generator))
    return network


@pytest.fixture(scope="module")
def shared(network: nn.Module) -> ParameterSharing:
    return ParameterSharing(network, group_size=4, min_kernels=64)


def tile(seed: int = 1) -> Tensor:
    return torch.rand(1, 1, *PATCH, generator=torch.Generator().manual_seed(seed)) * 4 - 1


def test_every_large_layer_keeps_a_quarter_of_its_kernels(shared: ParameterSharing, network: nn.Module) -> None:
    assert {layer.name for layer in shared.layers} == TIED == set(shared_layers(shared.model))
    assert all(layer.shared == layer.kernels // 4 for layer in shared.layers)
    assert all(0 < layer.error < 0.15 for layer in shared.layers)
    assert not shared_layers(network)  # what was given is left as it was


def test_logits_stay_near(shared: ParameterSharing, network: nn.Module) -> None:
    with torch.no_grad():
        assert 0 < relative_error(shared.model(tile()), network(tile())) < 0.1


def test_the_stored_file_is_a_third_and_loads_as_the_plain_network(
    shared: ParameterSharing, package: ModelPackage, tmp_path: Path
) -> None:
    shared.save(tmp_path / "shared.safetensors")
    stored = load_file(tmp_path / "shared.safetensors")
    for layer in shared.layers:
        assert f"{layer.name}.weight" not in stored
        parts = [stored[f"{layer.name}.{part}"] for part in ("kernels", "scale", "index")]
        assert sum(part.nbytes for part in parts) < 0.35 * 2 * 27 * layer.kernels
    write_package(tmp_path / "m", package.card, stored)
    loaded = load_network(load_model(tmp_path / "m"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(tile()), shared.model(tile()), rtol=0.05, atol=0.05)


def test_fine_tuning_moves_kernels_and_keeps_the_ties(network: nn.Module) -> None:
    shared = ParameterSharing(network, min_kernels=64)
    layer = shared_layers(shared.model)["down.0.conv1"]
    before, index = layer.kernels.detach().clone(), layer.index.clone()  # type: ignore[operator]
    optimiser = torch.optim.Adam(shared.model.parameters(), lr=1e-4)
    with torch.no_grad():
        wanted = network(tile())
    losses = []
    for _ in range(8):
        loss = (shared.model(tile()) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0], losses
    assert not torch.equal(layer.kernels, before)
    assert torch.equal(layer.index, index)  # type: ignore[arg-type]
    weight = layer.weight / layer.scale[:, None, None, None, None]
    assert len(torch.unique(weight.flatten(0, 1).round(decimals=5), dim=0)) <= len(layer.kernels)


def test_writing_out_changes_nothing(shared: ParameterSharing) -> None:
    plain = written_out(shared.model)
    assert not shared_layers(plain)
    with torch.no_grad():
        torch.testing.assert_close(plain(tile()), shared.model(tile()))
    torch.testing.assert_close(dict(expand(shared.model.state_dict())), dict(plain.state_dict()))


def test_int8_stores_shared_kernels_once(shared: ParameterSharing, network: nn.Module, tmp_path: Path) -> None:
    tiles = [tile(seed) for seed in range(4)]
    small = Quantization(shared.model).export(tmp_path / "shared.onnx", tiles)
    names = {item.name: item for item in onnx.load(small).graph.initializer}
    assert list(names["down.0.conv2.kernels"].dims) == [64, 3, 3, 3]
    assert list(names["down.0.conv2.index"].dims) == [16, 16]
    with torch.no_grad():
        expected = shared.model(tile())
    for predictor in (OnnxRuntimePredictor(small, PATCH), OpenVinoPredictor(small, PATCH, "int8")):
        assert relative_error(predictor(tile()), expected) < 0.15
    plain = Quantization(network).export(tmp_path / "plain.onnx", tiles)
    assert small.stat().st_size < 0.75 * plain.stat().st_size


def test_clusters_of_known_rows() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.0, 0.2], [5.0, 5.0], [5.2, 5.0], [9.0, 0.0]])
    centres, index = cluster(rows, 3, seed=0)
    assert index[0] == index[1] != index[2] == index[3] != index[4]
    torch.testing.assert_close(centres[index[0]], torch.tensor([0.0, 0.1]))
    assert set(index.tolist()) == {0, 1, 2}


def test_the_same_seed_gives_the_same_ties(network: nn.Module, shared: ParameterSharing) -> None:
    again = ParameterSharing(network, group_size=4, min_kernels=64)
    torch.testing.assert_close(again.state_dict(), shared.state_dict(), rtol=0, atol=0)


def test_wishes_that_make_no_sense(network: nn.Module) -> None:
    with pytest.raises(ConfigError, match="Groups of 1"):
        ParameterSharing(network, group_size=1)
    with pytest.raises(ConfigError, match="No convolution"):
        ParameterSharing(network)


def test_a_shared_convolution_is_a_convolution() -> None:
    conv = nn.Conv3d(2, 3, 3, stride=2, padding=1)
    index = torch.arange(6).reshape(3, 2)
    shared = SharedConv3d(conv, conv.weight.detach().flatten(0, 1), torch.ones(3), index)
    x = torch.rand(1, 2, 8, 8, 8)
    torch.testing.assert_close(shared(x), conv(x))
    torch.testing.assert_close(written_out(nn.Sequential(shared))(x), conv(x))
