"""A package's network -> one ONNX file that says itself what goes in and what comes out.

Batch is free, the window is the model's. Nothing of this machine stays in the file: the exporter notes source lines and
folders at every operation, which are taken out.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg.deploy.libraries import onnx_library
from medseg.errors import ModelError
from medseg.imaging.emit import emit
from medseg.inference.backends.measure import noise_tile, relative_error
from medseg.inference.backends.onnxruntime_backend import OnnxRuntimePredictor
from medseg.inference.backends.predictor import Shape, patch_of
from medseg.inference.backends.torch_backend import load_network
from medseg.models.card import ModelCard
from medseg.models.store import ModelPackage

OPSET = 20
TOLERANCE = 1e-3
INPUT, OUTPUT = "tiles", "logits"


def export_onnx(package: ModelPackage, path: Path) -> Path:
    """Write the network of a package as ONNX, checked and run before it appears.

    Input 'tiles' float32 [batch, 1, i, j, k], normalised as `medseg_input` in its metadata says; output 'logits'
    float32 [batch, C, i, j, k], channel 0 background, then the labels of `medseg_labels` in order.

    Raises:
        ConfigError: onnx or onnxscript is not installed.
        ModelError: ONNX Runtime does not give PyTorch's logits.
        OutputError: the file could not be written.
    """
    patch = patch_of(package)
    network = load_network(package)
    model = to_onnx(network, patch)
    describe(model, package.card)
    return write_onnx(model, path, lambda file: check_logits(file, network, patch))


def to_onnx(network: nn.Module, patch: Shape) -> Any:
    """The network as an onnx.ModelProto with weights inside, batch norm folded into convolutions."""
    onnx_library()
    tile = torch.zeros(2, 1, *patch)
    batch = torch.export.Dim("batch")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network.eval(),
            (tile,),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    if program is None:
        raise ModelError("PyTorch could not export this network to ONNX.", advice="")
    return _anonymous(program.model_proto)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own libraries' deprecations and of torchvision, which is not wanted here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _anonymous(model: Any) -> Any:
    graph = model.graph
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info, graph, model):
        del item.metadata_props[:]
        item.ClearField("doc_string")
    return model


def describe(model: Any, card: ModelCard) -> None:
    """Write what goes in and what comes out into the file's metadata."""
    onnx = onnx_library()
    assert card.input is not None
    onnx.helper.set_model_props(
        model,
        {
            "medseg_model": card.name,
            "medseg_version": card.version,
            "medseg_licence": card.licence,
            "medseg_input": json.dumps(
                card.input.model_dump(mode="json") | {"axes": "patient's right-left, posterior-anterior, up: RAS"}
            ),
            "medseg_labels": json.dumps(card.labels),
            "medseg_output": "logits: interpolate to the scan's grid linearly, then the largest channel is the label",
            "medseg_intended_use": card.intended_use,
        },
    )


def write_onnx(model: Any, path: Path, check: Any) -> Path:
    """Write a checked model as one file; `check(file)` runs before it appears."""
    onnx = onnx_library()
    model.producer_name = "medseg"
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    return emit(path, lambda file: file.write_bytes(content), check)


def check_logits(file: Path, network: nn.Module, patch: Shape) -> None:
    """Two tiles at once through ONNX Runtime and PyTorch.

    Raises:
        ModelError: the logits differ by more than `TOLERANCE` of their root mean square.
    """
    tiles = torch.cat([noise_tile(patch), noise_tile(patch).flip(2) * 0.5])
    with torch.inference_mode():
        expected: Tensor = network(tiles)
    error = relative_error(OnnxRuntimePredictor(file, patch)(tiles), expected)
    if error > TOLERANCE:
        raise ModelError(f"The ONNX file's logits differ from PyTorch's by {error:.2%}.", advice="")
