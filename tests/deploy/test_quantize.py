"""int8: symmetric, calibrated, stored in 8 bits, and close to the network."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper

from medseg.deploy.onnx_export import export_onnx
from medseg.deploy.quantize import Quantization
from medseg.errors import ConfigError, DataError
from medseg.inference.backends import load_network
from medseg.inference.backends.measure import relative_error
from medseg.inference.backends.onnxruntime_backend import OnnxRuntimePredictor
from medseg.inference.backends.openvino_backend import OpenVinoPredictor
from medseg.models.store import ModelPackage
from tests.inference.backends.packages import PATCH, tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return tiny_package(tmp_path_factory.mktemp("tiny") / "model", channels=[8, 16])


@pytest.fixture(scope="module")
def tiles() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(1, 1, *PATCH, generator=generator) * 4 - 1 for _ in range(4)]


@pytest.fixture(scope="module")
def float_file(package: ModelPackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(package, tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.fixture(scope="module")
def int8_file(float_file: Path, tiles: list[torch.Tensor]) -> Path:
    return Quantization(float_file, bits=8).export(float_file.parent / "model.int8.onnx", tiles)


def arrays(file: Path) -> dict[str, object]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load(file).graph.initializer}


def test_weights_are_stored_in_eight_bits(int8_file: Path) -> None:
    found = arrays(int8_file)
    kernels = {name: array for name, array in found.items() if getattr(array, "ndim", 0) == 5}
    assert len(kernels) == 8  # six of DoubleConvs, one transposed, the head
    assert {str(array.dtype) for array in kernels.values()} == {"int8"}  # type: ignore[attr-defined]


def test_it_is_symmetric_and_signed_as_tensorrt_wants(int8_file: Path) -> None:
    points = {name: array for name, array in arrays(int8_file).items() if name.startswith("zero_point")}
    assert points
    for name, array in points.items():
        assert str(array.dtype) == "int8", name  # type: ignore[attr-defined]
        assert not array.any(), name  # type: ignore[attr-defined]


def test_openvino_gives_nearly_the_networks_logits(
    int8_file: Path, package: ModelPackage, tiles: list[torch.Tensor]
) -> None:
    """Also of a network with a skip connection, where OpenVINO's reading of QDQ pairs was wrong by a third."""
    predictor = OpenVinoPredictor(int8_file, PATCH, "int8")
    assert predictor.precision == "int8"
    assert relative_error(predictor(tiles[0]), OnnxRuntimePredictor(int8_file, PATCH)(tiles[0])) < 0.01
    with torch.no_grad():
        expected = load_network(package)(tiles[0])
    assert 0 < relative_error(predictor(tiles[0]), expected) < 0.1


def test_the_description_travels_along(int8_file: Path, package: ModelPackage) -> None:
    told = {item.key: item.value for item in onnx.load(int8_file).metadata_props}
    assert told["medseg_model"] == package.card.name


def test_the_ends_can_stay_float_and_a_network_serves_as_well(
    package: ModelPackage, tiles: list[torch.Tensor], tmp_path: Path
) -> None:
    file = Quantization(load_network(package), keep_ends=True).export(tmp_path / "m.onnx", tiles)
    kernels = {name: array for name, array in arrays(file).items() if getattr(array, "ndim", 0) == 5}
    floats = [name for name, array in kernels.items() if str(array.dtype) == "float32"]  # type: ignore[attr-defined]
    assert sorted(floats) == ["head.weight", "stem.conv1.weight"]


def test_fewer_bits_are_not_offered(float_file: Path) -> None:
    with pytest.raises(ConfigError, match="4 bits"):
        Quantization(float_file, bits=4)


@pytest.mark.parametrize(
    ("tiles", "told"),
    [([], "no tiles"), ([torch.full((1, 1, *PATCH), float("nan"))], "not finite"), ([torch.zeros(4)], r"\(4,\)")],
)
def test_bad_calibration_is_refused(tiles: list[torch.Tensor], told: str, float_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        Quantization(float_file).export(tmp_path / "m.onnx", tiles)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named_with_its_extra(
    float_file: Path, tiles: list[torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match=r"needs nncf, which is not installed.*medseg\[deploy\]"):
        Quantization(float_file).export(tmp_path / "m.onnx", tiles)
