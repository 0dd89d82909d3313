"""Shared kernels inside an int8 ONNX file: stored once, gathered when the model is loaded.

NNCF quantises the network with its kernels written out. Here the weight of each shared convolution is replaced by

    DequantizeLinear(Gather(kernels int8 [n, k, k, k], Cast(index [O, I])), scale [O])

which is the same weight with one rounding for all channels that share a kernel. Runtimes fold it into a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medseg.deploy.libraries import onnx_library
from medseg.imaging.volume import Array
from medseg.networks.shared_kernels import SharedConv3d

_INDEX_AXES = (slice(None), None, None, None, None)


def store_shared(model: Any, layers: Mapping[str, SharedConv3d]) -> int:
    """Store the kernels of `layers` once in a QDQ model, in place; how many layers were."""
    return sum(_store(model, name, layer) for name, layer in layers.items())


def _store(model: Any, name: str, layer: SharedConv3d) -> bool:
    numpy = onnx_library().numpy_helper
    initial = {item.name: item for item in model.graph.initializer}
    dequantise = next((node for node in model.graph.node if _is_weight_of(node, name, initial)), None)
    if dequantise is None:
        return False
    weight, scale = (numpy.to_array(initial[key]) for key in dequantise.input[:2])
    kernels, index = _parts(layer)
    fitted = _scales(weight * scale[_INDEX_AXES], kernels[index])
    if not (fitted > 0).all():  # a norm's negative factor has turned some of them round: written out they stay
        return False
    step = float(np.abs(kernels).max()) / 127
    _add(model, f"{name}.kernels", np.round(kernels / step).astype(np.int8))
    _add(model, f"{name}.index", index.astype(np.uint16 if len(kernels) > 256 else np.uint8))
    _add(model, f"{name}.scale", (fitted * step).astype(np.float32))
    _gather(model, dequantise, name)
    return True


def _is_weight_of(node: Any, name: str, initial: Mapping[str, Any]) -> bool:
    if node.op_type != "DequantizeLinear" or node.input[0] not in initial:
        return False
    return f"{name}.weight" in node.input[0] and len(initial[node.input[0]].dims) == 5


def _parts(layer: SharedConv3d) -> tuple[Array, Array]:
    return layer.kernels.detach().float().numpy(), layer.index.long().numpy()  # type: ignore[operator]


def _scales(weight: Array, kernels: Array) -> Array:
    """Per output channel the factor that brings `kernels` [O, I, k, k, k] nearest to `weight`."""
    axes = (1, 2, 3, 4)
    product: Array = (weight * kernels).sum(axes) / np.maximum((kernels * kernels).sum(axes), 1e-20)
    return product


def _add(model: Any, name: str, array: Array) -> None:
    model.graph.initializer.append(onnx_library().numpy_helper.from_array(array, name))


def _gather(model: Any, dequantise: Any, name: str) -> None:
    onnx = onnx_library()
    make, nodes = onnx.helper.make_node, list(model.graph.node)
    cast = make("Cast", [f"{name}.index"], [f"{name}.number"], name=f"{name}.Cast", to=onnx.TensorProto.INT32)
    gather = make("Gather", [f"{name}.kernels", f"{name}.number"], [f"{name}.gathered"], name=f"{name}.Gather")
    old = {dequantise.input[0], dequantise.input[1]}
    dequantise.input[0], dequantise.input[1] = f"{name}.gathered", f"{name}.scale"
    place = nodes.index(dequantise)
    kept = [item for item in model.graph.initializer if item.name not in old]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend([*nodes[:place], cast, gather, *nodes[place:]])
