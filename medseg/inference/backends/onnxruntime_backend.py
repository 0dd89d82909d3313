"""ONNX Runtime: the package's `model.onnx` on the CPU, or on NVIDIA's GPUs by CUDA or TensorRT.

The GPU providers come with `onnxruntime-gpu` and are unmeasured here: no GPU was at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg.errors import ConfigError, ModelIntegrityError
from medseg.inference.backends.choice import Choice
from medseg.inference.backends.predictor import ONNX_FP32, check_patch, needs, patch_of
from medseg.models.store import ModelPackage

_QUIET = 3  # errors alone


class OnnxRuntimePredictor:
    """One session.

    Args:
        path: an ONNX file of one input, float32 [batch, 1, i, j, k].
        patch: i, j, k of that input.
        backend: 'onnxruntime' (CUDA where its provider is installed, else CPU) or 'tensorrt'.

    Raises:
        ConfigError: onnxruntime or the wanted provider is not installed.
        ModelIntegrityError: the file cannot be loaded.
    """

    def __init__(self, path: Path, patch: tuple[int, int, int], backend: str = "onnxruntime") -> None:
        with needs("onnxruntime", "cpu"):
            import onnxruntime
        self.backend = backend
        self.choice: Choice | None = None
        providers = _providers(onnxruntime.get_available_providers(), backend)
        try:
            self._session = onnxruntime.InferenceSession(str(path), _options(onnxruntime), providers=providers)
        except Exception as error:  # the library's own errors share no base
            raise ModelIntegrityError(f"{path.name} is no model that ONNX Runtime can run: {error}") from error
        self.device = "cpu" if self._session.get_providers()[0].startswith("CPU") else "cuda"
        self.precision = "fp16" if backend == "tensorrt" else "fp32"
        self._input, self._patch = self._session.get_inputs()[0].name, patch

    def __call__(self, tiles: Tensor) -> Tensor:
        """See `Predictor`."""
        check_patch(tiles, self._patch)
        batch = tiles.detach().float().cpu().contiguous().numpy()
        (logits,) = self._session.run(None, {self._input: batch})
        return torch.from_numpy(logits).float().to(tiles.device)


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = _QUIET
    return options


def _providers(available: list[str], backend: str) -> list[Any]:
    rest = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    if backend != "tensorrt":
        return rest
    if "TensorrtExecutionProvider" not in available:
        advice = "Install onnxruntime-gpu in place of onnxruntime, and TensorRT, on a machine with an NVIDIA GPU."
        raise ConfigError("This ONNX Runtime has no TensorRT.", advice=advice)
    return [("TensorrtExecutionProvider", {"trt_fp16_enable": True}), *rest]


def build_onnxruntime(package: ModelPackage, precision: str, backend: str = "onnxruntime") -> OnnxRuntimePredictor:
    """A session of the package's `model.onnx`.

    Raises:
        ConfigError: no such precision here, or the package holds no ONNX file.
    """
    wanted = "fp16" if backend == "tensorrt" else "fp32"
    if precision != wanted:
        raise ConfigError(f"Backend {backend} computes in {wanted} alone, not in {precision}.")
    if ONNX_FP32 not in package.card.files:
        advice = f"Make one: medseg export {package.card.name} -o FOLDER, then use FOLDER as the model."
        raise ConfigError(f"Model {package.card.id} holds no {ONNX_FP32}.", advice=advice)
    return OnnxRuntimePredictor(package.file(ONNX_FP32), patch_of(package), backend)
