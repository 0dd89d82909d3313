"""Quantization: post-training int8 by NNCF, as an ONNX file with QuantizeLinear and DequantizeLinear.

Weights are int8 per output channel, activations int8 per tensor, both symmetric and signed: OpenVINO computes so on
CPUs, and TensorRT takes no other. Scales of activations come from calibration tiles; biases are corrected for the
rounding (NNCF's fast bias correction). Weights are stored in 8 bits, so the file is about a quarter of fp32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg.deploy.libraries import nncf_library, onnx_library
from medseg.deploy.onnx_export import describe, to_onnx, write_onnx
from medseg.deploy.shared_int8 import store_shared
from medseg.errors import ConfigError, DataError, ModelError
from medseg.inference.backends.measure import relative_error
from medseg.inference.backends.onnxruntime_backend import OnnxRuntimePredictor
from medseg.inference.backends.openvino_backend import OpenVinoPredictor
from medseg.inference.backends.predictor import Shape
from medseg.models.card import ModelCard
from medseg.networks.shared_kernels import shared_layers, written_out

WEIGHTED = ("Conv", "ConvTranspose")
RUNTIMES_AGREE = 0.05  # of the logits' root mean square


class Quantization:
    """int8 of a network.

        Quantization(network, bits=8).export("model.int8.onnx", tiles)

    Args:
        model: a network in evaluation mode, or a float ONNX file. Kernels that are shared are stored once, in 8 bits.
        bits: 8; the hardware computes in nothing less.
        keep_ends: the first and the last convolution stay in float; for networks that lose too much otherwise.
        card: describes input and output in the file's metadata; a float ONNX file brings its own description.

    Raises:
        ConfigError: another number of bits.
    """

    def __init__(
        self, model: nn.Module | Path, bits: int = 8, *, keep_ends: bool = False, card: ModelCard | None = None
    ) -> None:
        if bits != 8:
            raise ConfigError(f"Quantization to {bits} bits is not offered.", advice="Use bits=8.")
        self.model, self.bits, self.keep_ends, self.card = model, bits, keep_ends, card

    def export(self, path: str | Path, tiles: Iterable[Tensor]) -> Path:
        """Calibrate with `tiles` and write the quantised ONNX file, loaded by OpenVINO before it appears.

        Args:
            path: the file to write.
            tiles: float32 [1, 1, i, j, k], normalised, all of the model's window; 20 to 300 of real scans.

        Raises:
            DataError: no tiles, or not finite.
            ConfigError: nncf, onnx or openvino is not installed.
        """
        calibration = [_checked(tile) for tile in tiles]
        if not calibration:
            raise DataError("There are no tiles to calibrate with.")
        _, _, i, j, k = calibration[0].shape
        quantised = self._quantise(self._onnx((i, j, k)), calibration)
        if isinstance(self.model, nn.Module):
            store_shared(quantised, shared_layers(self.model))
        if self.card is not None:
            describe(quantised, self.card)
        return write_onnx(quantised, Path(path), lambda file: _check_runs(file, (i, j, k), calibration[0]))

    def _onnx(self, patch: Shape) -> Any:
        if isinstance(self.model, nn.Module):
            return to_onnx(written_out(self.model), patch)
        return onnx_library().load(self.model)

    def _quantise(self, model: Any, tiles: list[Tensor]) -> Any:
        nncf = nncf_library()
        nncf.set_log_level(logging.ERROR)
        name = model.graph.input[0].name
        return nncf.quantize(
            model,
            nncf.Dataset(tiles, lambda tile: {name: tile.numpy()}),
            preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(tiles),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=_ends(model)) if self.keep_ends else None,
        )


def _checked(tile: Tensor) -> Tensor:
    if tile.ndim != 5 or not torch.isfinite(tile).all():
        raise DataError(f"A calibration tile of shape {tuple(tile.shape)} is not finite, or not [1, 1, i, j, k].")
    return tile.float().cpu().contiguous()


def _ends(model: Any) -> list[str]:
    """Names of the first and last convolution."""
    names = [node.name for node in model.graph.node if node.op_type in WEIGHTED]
    return [names[0], names[-1]]


def _check_runs(file: Path, patch: Shape, tile: Tensor) -> None:
    """OpenVINO computes with integers what ONNX Runtime computes with floats that are rounded alike.

    Raises:
        ModelError: they differ by more than roundings that fall differently.
    """
    faithful = OnnxRuntimePredictor(file, patch)(tile[:1])
    error = relative_error(OpenVinoPredictor(file, patch, "int8")(tile[:1]), faithful)
    if error > RUNTIMES_AGREE:
        raise ModelError(f"OpenVINO and ONNX Runtime differ by {error:.1%} on the int8 file.", advice="")
