"""What every backend gives: a callable that turns tiles into logits and says what it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from medseg.errors import ConfigError, ModelError, ModelIntegrityError
from medseg.models.store import ModelPackage

if TYPE_CHECKING:
    from medseg.inference.backends.choice import Choice

ONNX_FP32 = "model.onnx"
ONNX_INT8 = "model.int8.onnx"
Shape = tuple[int, int, int]


class Predictor(Protocol):
    """Tiles in, logits out.

    Attributes:
        backend: 'torch', 'onnxruntime', 'tensorrt' or 'openvino'.
        precision: of the arithmetic in truth: 'fp32', 'bf16', 'fp16' or 'int8'.
        device: 'cpu' or 'cuda'.
        choice: how `auto` came to it; None where the caller named it.
    """

    backend: str
    precision: str
    device: str
    choice: Choice | None

    def __call__(self, tiles: Tensor) -> Tensor:
        """float32 [B, 1, i, j, k], normalised, any memory format -> logits float32 [B, C, i, j, k].

        The result lies on the device of `tiles` and is the caller's own: the next call does not touch it.
        """
        ...


@dataclass(frozen=True, order=True)
class Candidate:
    """A way to run a model."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


@contextmanager
def needs(library: str, extra: str) -> Iterator[None]:
    """Around an import: where the library is missing, say which extra brings it.

    Raises:
        ConfigError: naming the library and the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != library:
            raise
        advice = f"Install it: pip install 'medseg[{extra}]'."
        raise ConfigError(f"This needs {library}, which is not installed.", advice=advice) from error


def openvino_library() -> Any:
    """The openvino module, without its telemetry: importing it reports to a server of its maker otherwise.

    Where the package openvino_telemetry cannot be imported, OpenVINO and NNCF use a stub of their own that sends
    nothing. Call it before the first import of either.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    with needs("openvino", "cpu"):
        import openvino
    return openvino


def patch_of(package: ModelPackage) -> Shape:
    """The window that the model was trained for.

    Raises:
        ModelIntegrityError: the card has no input.
    """
    if package.card.input is None:
        raise ModelIntegrityError(f"Model {package.card.id} does not say what input its network wants.")
    return package.card.input.patch_size


def check_patch(tiles: Tensor, patch: Shape) -> None:
    """Compiled backends know one window.

    Raises:
        ModelError: tiles of another shape.
    """
    if tuple(tiles.shape[1:]) != (1, *patch):
        raise ModelError(
            f"This model is compiled for windows of {patch}; it was given {tuple(tiles.shape)}.", advice=""
        )


def native_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; elsewhere it is emulated and slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
