"""The ONNX file: the network's function, any batch, its description inside, nothing of this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch

import medseg
from medseg.deploy.onnx_export import check_logits, export_onnx
from medseg.errors import ConfigError, ModelError
from medseg.inference.backends import load_network
from medseg.inference.backends.onnxruntime_backend import OnnxRuntimePredictor
from medseg.inference.backends.openvino_backend import OpenVinoPredictor
from medseg.models.store import ModelPackage
from tests.inference.backends.packages import PATCH, tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return tiny_package(tmp_path_factory.mktemp("tiny") / "model", attention=True, residual=True)


@pytest.fixture(scope="module")
def file(package: ModelPackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(package, tmp_path_factory.mktemp("onnx") / "model.onnx")


def test_every_runtime_gives_the_networks_logits_for_any_batch(package: ModelPackage, file: Path) -> None:
    tiles = torch.rand(3, 1, *PATCH, generator=torch.Generator().manual_seed(4)) * 4 - 1
    with torch.no_grad():
        expected = load_network(package)(tiles)
    for predictor in (OnnxRuntimePredictor(file, PATCH), OpenVinoPredictor(file, PATCH, "fp32")):
        assert predictor.precision == "fp32"
        torch.testing.assert_close(predictor(tiles), expected, rtol=1e-3, atol=1e-3)


def test_the_file_describes_its_input_and_output(package: ModelPackage, file: Path) -> None:
    model = onnx.load(file)
    (tiles,), (logits,) = model.graph.input, model.graph.output
    assert (tiles.name, logits.name) == ("tiles", "logits")
    sizes = tiles.type.tensor_type.shape.dim
    assert [size.dim_value for size in sizes[1:]] == [1, *PATCH]
    assert sizes[0].dim_param
    told = {item.key: item.value for item in model.metadata_props}
    assert (told["medseg_model"], told["medseg_version"]) == (package.card.name, package.card.version)
    assert json.loads(told["medseg_labels"]) == package.card.labels
    wanted = json.loads(told["medseg_input"])
    assert wanted["spacing_mm"] == list(package.card.input.spacing_mm)
    assert wanted["window_hu"] == list(package.card.input.window_hu)


def test_nothing_of_this_machine_is_in_the_file(file: Path) -> None:
    content = file.read_bytes()
    for word in (str(Path(medseg.__file__).parent), sys.prefix, "stack_trace", "/home/", ".py"):
        assert word.encode() not in content, word


def test_a_file_that_differs_from_the_network_does_not_appear(package: ModelPackage, file: Path) -> None:
    other = load_network(package)
    with torch.no_grad():
        other.head.bias += 1  # type: ignore[union-attr,operator]
    with pytest.raises(ModelError, match="differ from PyTorch's"):
        check_logits(file, other, PATCH)


@pytest.mark.parametrize("library", ["onnx", "onnxscript"])
def test_a_missing_library_is_named_with_its_extra(
    library: str, package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"needs {library}, which is not installed.*medseg\[deploy\]"):
        export_onnx(package, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
