"""Quantised ONNX for OpenVINO: a pair of QuantizeLinear and DequantizeLinear becomes one FakeQuantize.

OpenVINO 2026.4 reads the pair as FakeQuantize to integers, conversions and a multiplication. Where a skip connection
meets a transposed convolution in a concatenation, its int8 kernels then take the scale of the skip for one: logits of a
two-level U-Net were wrong by a third. In the form that OpenVINO's own quantiser writes, made here, the same kernels
give what ONNX Runtime gives. The tests hold that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_BETWEEN = ("Convert", "Subtract")


def fold_pairs(openvino: Any, model: Any) -> int:
    """Replace every pair in `model` (an openvino.Model) in place; the number of pairs."""
    folded = 0
    for node in model.get_ops():
        if node.get_type_name() == "FakeQuantize" and _fold(openvino, node):
            folded += 1
    model.validate_nodes_and_infer_types()
    return folded


def _fold(openvino: Any, quantise: Any) -> bool:
    chain = _chain(quantise)
    if chain is None:
        return False
    *between, multiply = chain
    shifts = [_constant(node, 1) for node in between if node.get_type_name() == "Subtract"]
    low, high = _constant(quantise, 3), _constant(quantise, 4)
    scale = _constant(multiply, 1)
    if scale is None or low is None or high is None or any(shift is None for shift in shifts):
        return False
    shift = shifts[0] if shifts else np.float32(0)
    make = openvino.opset13
    inputs = [quantise.input(number).get_source_output() for number in range(3)]
    ends = [make.constant(np.asarray((end - shift) * scale, np.float32)) for end in (low, high)]
    merged = make.fake_quantize(*inputs, *ends, quantise.get_attributes()["levels"])
    merged.friendly_name = quantise.friendly_name
    multiply.output(0).replace(merged.output(0))
    return True


def _chain(quantise: Any) -> list[Any] | None:
    """What follows a FakeQuantize up to its Multiply; None where anything else follows, or several things do."""
    chain: list[Any] = []
    node = quantise
    while True:
        targets = list(node.output(0).get_target_inputs())
        if len(targets) != 1:
            return None
        node = targets[0].get_node()
        chain.append(node)
        if node.get_type_name() == "Multiply":
            return chain
        if node.get_type_name() not in _BETWEEN:
            return None


def _constant(node: Any, number: int) -> Any:
    """The value of an input in float32, seen through conversions; None where it is computed."""
    source = node.input(number).get_source_output().get_node()
    while source.get_type_name() == "Convert":
        source = source.input(0).get_source_output().get_node()
    return np.asarray(source.data, np.float32) if source.get_type_name() == "Constant" else None
