"""The workshop's libraries, imported when they are used."""

from __future__ import annotations

from typing import Any

from medseg.inference.backends.predictor import needs, openvino_library

EXTRA = "deploy"


def onnx_library() -> Any:
    """onnx, with onnxscript beside it, which PyTorch's exporter needs.

    Raises:
        ConfigError: not installed.
    """
    with needs("onnx", EXTRA):
        import onnx
    with needs("onnxscript", EXTRA):
        import onnxscript
    assert onnxscript
    return onnx


def nncf_library() -> Any:
    """nncf, without telemetry.

    Raises:
        ConfigError: not installed.
    """
    openvino_library()
    with needs("nncf", EXTRA):
        import nncf
    return nncf
