"""Every backend is the same function: tiles in, the network's logits out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medseg.errors import ConfigError, ModelError, ModelIntegrityError
from medseg.inference.backends import build_predictor, load_network
from medseg.inference.backends.onnxruntime_backend import OnnxRuntimePredictor
from medseg.inference.backends.openvino_backend import OpenVinoPredictor
from medseg.models.notes import KEPT, recall_bytes, remember_bytes
from medseg.models.store import ModelPackage, load_model
from tests.inference.backends.packages import PATCH, tiny_package
from tests.inference.planted import write_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return tiny_package(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def tiles() -> torch.Tensor:
    tiles = torch.rand(2, 1, *PATCH, generator=torch.Generator().manual_seed(1)) * 4 - 1
    return tiles.to(memory_format=torch.channels_last_3d)


@pytest.fixture(scope="module")
def expected(package: ModelPackage, tiles: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = load_network(package)(tiles)
    assert logits.std() > 0.1
    return logits


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_fp32_is_the_network(backend: str, package: ModelPackage, tiles: torch.Tensor, expected: torch.Tensor) -> None:
    predictor = build_predictor(package, backend, "fp32")
    assert (predictor.backend, predictor.precision, predictor.device) == (backend, "fp32", "cpu")
    assert predictor.choice is None
    logits = predictor(tiles)
    assert (logits.dtype, logits.shape) == (torch.float32, expected.shape)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bf16_is_nearly_the_network(
    backend: str, package: ModelPackage, tiles: torch.Tensor, expected: torch.Tensor
) -> None:
    predictor = build_predictor(package, backend, "bf16")
    logits = predictor(tiles)
    assert logits.dtype == torch.float32
    assert (logits - expected).square().mean().sqrt() < 0.05 * expected.std()
    if predictor.precision == "bf16":
        assert not torch.equal(logits, expected)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_result_survives_the_next_call(backend: str, package: ModelPackage, tiles: torch.Tensor) -> None:
    predictor = build_predictor(package, backend, "fp32")
    first = predictor(tiles[:1])
    kept = first.clone()
    predictor(tiles[1:])
    assert torch.equal(first, kept)


def test_fp32_means_fp32_also_under_the_callers_autocast(
    package: ModelPackage, tiles: torch.Tensor, expected: torch.Tensor
) -> None:
    predictor = build_predictor(package, "torch", "fp32")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(predictor(tiles), expected, rtol=1e-4, atol=1e-4)


def test_a_compiled_backend_refuses_another_window(package: ModelPackage) -> None:
    predictor = build_predictor(package, "openvino", "fp32")
    with pytest.raises(ModelError, match=r"windows of \(16, 16, 8\)"):
        predictor(torch.zeros(1, 1, 16, 16, 16))


@pytest.mark.parametrize(
    ("backend", "precision", "told"),
    [
        ("cuda", "fp32", "'cuda'.*openvino"),
        ("torch", "int4", "'int4'.*int8"),
        ("torch", "fp16", "fp16"),
        ("torch", "int8", "int8"),
        ("onnxruntime", "bf16", "fp32 alone"),
        ("onnxruntime", "fp32", r"no model\.onnx.*medseg export"),
        ("openvino", "fp16", "fp16"),
        ("openvino", "int8", "no int8 variant that passed.*medseg export"),
        ("auto", "int8", "int8"),
    ],
)
def test_what_cannot_be_had_is_said(backend: str, precision: str, told: str, package: ModelPackage) -> None:
    with pytest.raises(ConfigError) as caught:
        build_predictor(package, backend, precision)
    assert re.search(told, str(caught.value))


BUILD = {"onnxruntime": OnnxRuntimePredictor, "openvino": lambda path, patch: OpenVinoPredictor(path, patch, "fp32")}


@pytest.mark.parametrize("backend", BUILD)
def test_a_file_that_is_no_network_is_named(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(ModelIntegrityError, match=r"model\.onnx is no model"):
        BUILD[backend](path, PATCH)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_missing_library_is_named_with_its_extra(
    backend: str, package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, backend, None)  # what Python does for a library that cannot be found
    with pytest.raises(ConfigError, match=rf"needs {backend}, which is not installed.*medseg\[cpu\]"):
        BUILD[backend](tmp_path / "m.onnx", PATCH)


def test_weights_with_shared_kernels_are_written_out(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "m")
    dense = load_network(package).state_dict()
    kernels = dense["stem.conv2.weight"].flatten(0, 1)
    index = torch.arange(16, dtype=torch.uint8).reshape(4, 4)
    weights = {name: tensor.contiguous() for name, tensor in dense.items() if name != "stem.conv2.weight"}
    weights |= {
        "stem.conv2.kernels": kernels.contiguous() / 2,
        "stem.conv2.scale": torch.full((4,), 2.0),
        "stem.conv2.index": index,
    }
    write_package(package.folder, package.card, weights)
    torch.testing.assert_close(load_network(load_model(package.folder)).state_dict(), dense)


def test_openvino_reports_to_nobody(package: ModelPackage, tmp_path: Path) -> None:
    code = (
        "import sys, threading; from medseg.inference.backends import build_predictor; "
        "from medseg.models.store import load_model; "
        "build_predictor(load_model(sys.argv[1]), 'openvino', 'fp32'); "
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry.')), "
        "sys.modules['openvino_telemetry'], threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(package.folder)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert done.stdout.strip().endswith("[] None 1")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_is_kept_and_a_damaged_one_made_again(
    tmp_path: Path, tiles: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    package = tiny_package(tmp_path / "m")
    first = build_predictor(package, "openvino", "fp32")(tiles)
    (kept,) = (tmp_path / "cache/openvino").glob("*.bin")
    content, written = kept.read_bytes(), kept.stat().st_mtime_ns
    assert torch.equal(build_predictor(package, "openvino", "fp32")(tiles), first)
    assert kept.stat().st_mtime_ns == written
    damaged = content[:-9] + b"?" * 9
    kept.write_bytes(damaged)
    assert torch.equal(build_predictor(package, "openvino", "fp32")(tiles), first)
    assert kept.read_bytes() != damaged


def test_few_conversions_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path))
    for number in range(KEPT + 2):
        remember_bytes("kind", {"number": number}, bytes([number]))
        newest = max((tmp_path / "kind").glob("*.bin"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number + 1, number + 1))
    assert [recall_bytes("kind", {"number": number}) for number in (0, 1, KEPT + 1)] == [None, None, bytes([KEPT + 1])]
    assert len(list((tmp_path / "kind").iterdir())) == 2 * KEPT


AFTER_TWO_MODELS = """
import os, signal
from torch import nn
from medseg.inference.backends.openvino_backend import OpenVinoPredictor

signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
network = nn.Conv3d(1, 2, 3).eval()
first, second = (OpenVinoPredictor(network, (8, 8, 8), "fp32") for _ in range(2))
del first
del second
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_after_two_models_of_openvino_is_handled() -> None:
    """Of two cores of OpenVINO's the second puts the first one's signal stack back, which is unmapped by then."""
    done = subprocess.run([sys.executable, "-c", AFTER_TWO_MODELS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
