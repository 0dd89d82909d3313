"""OpenVINO: the quickest on CPUs; fp32 and bf16 from the network itself, int8 from the package's `model.int8.onnx`.

Without a `model.onnx` in the package the network is converted, once, so that imported weights need no export.
OpenVINO computes in bf16 by default where the CPU can: the precision is always set here, and read back.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, ModelIntegrityError
from medseg.inference.backends.choice import Choice
from medseg.inference.backends.machine import machine_facts
from medseg.inference.backends.openvino_quantised import fold_pairs
from medseg.inference.backends.predictor import (
    ONNX_FP32,
    Shape,
    check_patch,
    native_bf16,
    openvino_library,
    patch_of,
)
from medseg.inference.backends.torch_backend import load_network
from medseg.models.notes import recall_bytes, remember_bytes
from medseg.models.store import ModelPackage

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_MAKING = Lock()  # `cache` alone would let two threads make one each


class OpenVinoPredictor:
    """A network compiled for this CPU and one window. A batch runs tile by tile: on a CPU nothing is gained otherwise.

    Args:
        source: the network in evaluation mode, an ONNX file, or what `compiled` gave on this machine.
        patch: i, j, k of a tile.
        precision: 'fp32', 'bf16', or 'int8' for a file that is quantised already.

    Raises:
        ConfigError: OpenVINO is not installed, or the precision is unknown.
        ModelIntegrityError: OpenVINO cannot run it.
    """

    backend, device = "openvino", "cpu"

    def __init__(self, source: nn.Module | Path | bytes, patch: Shape, precision: str) -> None:
        openvino = openvino_library()
        if precision not in (*_HINTS, "int8"):
            raise ConfigError(f"OpenVINO does not compute in {precision}.")
        self._openvino, self._patch = openvino, patch
        self.choice: Choice | None = None
        try:
            compiled = _compile(openvino, source, patch, precision)
        except RuntimeError as error:
            name = source.name if isinstance(source, Path) else type(source).__name__
            raise ModelIntegrityError(f"{name} is no model that OpenVINO can run: {error}") from error
        self.precision = "int8" if precision == "int8" else _true_precision(compiled)
        self._compiled = compiled
        self._channels = int(compiled.output(0).shape[1])
        self._request, self._turn = compiled.create_infer_request(), Lock()

    def __call__(self, tiles: Tensor) -> Tensor:
        """See `Predictor`."""
        check_patch(tiles, self._patch)
        batch = tiles.detach().float().cpu().contiguous()
        logits = torch.empty(len(batch), self._channels, *self._patch)
        for tile, out in zip(batch, logits, strict=True):
            self._infer(tile[None], out[None])
        return logits.to(tiles.device)

    @property
    def compiled(self) -> bytes:
        """The compiled network, for this machine and these versions alone; loads in a fraction of the time."""
        content: bytes = self._compiled.export_model().getvalue()
        return content

    def _infer(self, tile: Tensor, out: Tensor) -> None:
        # Both are OpenVINO's for the length of the call: nothing is copied.
        with self._turn:
            self._request.set_input_tensor(self._openvino.Tensor(tile.numpy(), shared_memory=True))
            self._request.set_output_tensor(self._openvino.Tensor(out.numpy(), shared_memory=True))
            self._request.infer()


def _core() -> Any:
    """The only one of this process, kept until its end.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signal handlers, and unmaps that when its core
    goes. Of two cores the second one puts the first one's stack back, which is gone by then: the next signal ends the
    process, or is handled in memory that holds something else by now.
    """
    with _MAKING:
        return _made_core()


@cache
def _made_core() -> Any:
    return openvino_library().Core()


def _compile(openvino: Any, source: nn.Module | Path | bytes, patch: Shape, precision: str) -> Any:
    core = _core()
    if isinstance(source, bytes):
        return core.import_model(source, "CPU", _settings(precision))
    return core.compile_model(_read(openvino, source, patch), "CPU", _settings(precision))


def _read(openvino: Any, source: nn.Module | Path, patch: Shape) -> Any:
    shape = [1, 1, *patch]
    if isinstance(source, Path):
        model = _core().read_model(source)
        model.reshape(shape)
        fold_pairs(openvino, model)
        return model
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO traces by means that PyTorch is giving up
        return openvino.convert_model(source, example_input=torch.zeros(shape), input=[tuple(shape)])


def _settings(precision: str) -> dict[str, Any]:
    rest = "bf16" if native_bf16() else "f32"  # of what an int8 file leaves unquantised
    return {
        "INFERENCE_PRECISION_HINT": _HINTS.get(precision, rest),
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned threads of two workers would share cores while others idle.
        "ENABLE_CPU_PINNING": False,
    }


def _true_precision(compiled: Any) -> str:
    kind = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    names = {"f32": "fp32", "bf16": "bf16"}
    return names.get(kind, kind)


def build_openvino(package: ModelPackage, precision: str) -> OpenVinoPredictor:
    """The package's network on this CPU.

    Raises:
        ConfigError: int8 is wanted and the package has none that passed the parity gate.
    """
    if precision == "int8":
        return OpenVinoPredictor(_int8_file(package), patch_of(package), precision)
    if ONNX_FP32 in package.card.files:
        return OpenVinoPredictor(package.file(ONNX_FP32), patch_of(package), precision)
    return _converted(package, precision)


def _converted(package: ModelPackage, precision: str) -> OpenVinoPredictor:
    """From the network itself: tracing it takes seconds, so what comes out is kept in the cache."""
    facts = machine_facts() | {"model": package.sha256, "precision": precision}
    kept = recall_bytes("openvino", facts)
    if kept is not None:
        with suppress(ModelIntegrityError):
            return OpenVinoPredictor(kept, patch_of(package), precision)
    predictor = OpenVinoPredictor(load_network(package), patch_of(package), precision)
    remember_bytes("openvino", facts, predictor.compiled)
    return predictor


def _int8_file(package: ModelPackage) -> Path:
    for variant in package.card.variants:
        if variant.precision == "int8" and variant.backend == "openvino":
            return package.file(variant.file)
    advice = f"Make one: medseg export {package.card.name} --int8 --calibrate FOLDER_OF_CT -o FOLDER."
    raise ConfigError(f"Model {package.card.id} has no int8 variant that passed the parity gate.", advice=advice)
