"""build_predictor: a package, and what the user wants of speed and precision -> a Predictor."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from medseg.errors import ConfigError, ModelError
from medseg.inference.backends.choice import Choice, recall_choice, remember_choice
from medseg.inference.backends.machine import machine_facts
from medseg.inference.backends.measure import CLEARLY_FASTER, OUT_OF_MEMORY, TOLERANCE, compare, noise_tile
from medseg.inference.backends.onnxruntime_backend import build_onnxruntime
from medseg.inference.backends.openvino_backend import build_openvino
from medseg.inference.backends.predictor import ONNX_FP32, Candidate, Predictor, native_bf16, patch_of
from medseg.inference.backends.torch_backend import TorchPredictor, build_torch, load_network, torch_device
from medseg.models.card import Variant
from medseg.models.store import ModelPackage

AUTO = "auto"
BACKENDS: dict[str, Callable[[ModelPackage, str], Predictor]] = {
    "openvino": build_openvino,
    "torch": build_torch,
    "onnxruntime": build_onnxruntime,
    "tensorrt": lambda package, precision: build_onnxruntime(package, precision, "tensorrt"),
}
_HANDICAP = {"bf16": CLEARLY_FASTER}  # than fp32, which is the more exact
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_ABLE = {
    "openvino": ("int8", "bf16", "fp32"),
    "torch": ("bf16", "fp16", "fp32"),
    "onnxruntime": ("fp32",),
    "tensorrt": ("fp16",),
}


def build_predictor(package: ModelPackage, backend: str = AUTO, precision: str = AUTO) -> Predictor:
    """What runs this package's network.

    Args:
        package: a verified package.
        backend: 'torch', 'onnxruntime', 'tensorrt', 'openvino', or 'auto': the fastest of those installed, found out
            once per machine and model on a few tiles, and remembered.
        precision: 'fp32', 'bf16', 'fp16', 'int8', or 'auto': the fastest of fp32, of bf16 where the processor has it,
            and of int8 where the package has a variant that passed its parity gate.

    Raises:
        ConfigError: unknown names, a library that is not installed (the text names the extra), or a precision that
            the backend or the package does not have.
        ModelIntegrityError: the package's files do not fit its card.
    """
    _check(backend, AUTO, *BACKENDS)
    _check(precision, AUTO, *PRECISIONS)
    if AUTO not in (backend, precision):
        return BACKENDS[backend](package, precision)
    candidates = candidates_of(package, backend, precision)
    choice = choose(package, candidates)
    predictor = BACKENDS[choice.backend](package, choice.precision)
    predictor.choice = choice
    return predictor


def _check(name: str, *known: str) -> None:
    if name not in known:
        raise ConfigError(f"Unknown choice {name!r}.", advice=f"There are {', '.join(known)}.")


def choose(package: ModelPackage, candidates: list[Candidate]) -> Choice:
    """The fastest candidate, bf16 only where it is clearly faster: remembered, or measured now.

    Raises:
        ModelError: none of them works.
    """
    if len(candidates) == 1:
        return Choice(candidates[0].backend, candidates[0].precision)
    facts = machine_facts() | {"model": package.sha256, "candidates": [str(one) for one in candidates]}
    return recall_choice(facts, candidates) or _measure(package, candidates, facts)


def _measure(package: ModelPackage, candidates: list[Candidate], facts: dict[str, Any]) -> Choice:
    # Where PyTorch alone is asked for, a package without a network says so itself.
    has_network = package.card.network or all(one.backend == "torch" for one in candidates)
    reference = TorchPredictor(load_network(package), "fp32") if has_network else None
    build = _builder(package)
    tolerance = TOLERANCE | {"int8": max((2 * one.figures.logit_error for one in _gated_int8(package)), default=0.0)}
    seconds, refused = compare(candidates, build, noise_tile(patch_of(package)), reference, tolerance)
    if not seconds:
        why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ModelError(f"Model {package.card.id} runs on no backend here ({why}).", advice="")
    best = min(candidates, key=lambda one: seconds.get(str(one), float("inf")) * _HANDICAP.get(one.precision, 1.0))
    choice = Choice(best.backend, best.precision, seconds, refused)
    if OUT_OF_MEMORY not in refused.values():  # another day it may have room
        remember_choice(facts, choice)
    return choice


def _builder(package: ModelPackage) -> Callable[[Candidate], Predictor]:
    return lambda candidate: BACKENDS[candidate.backend](package, candidate.precision)


def candidates_of(package: ModelPackage, backend: str = AUTO, precision: str = AUTO) -> list[Candidate]:
    """What can run this package here, the likely fastest first. Never empty.

    TensorRT builds its engine for minutes and is taken only by name.

    Raises:
        ConfigError: nothing fits the wish.
    """
    names = [name for name in BACKENDS if name != "tensorrt"] if backend == AUTO else [backend]
    found = [
        Candidate(name, one)
        for name in names
        if _has(package, name, named=backend != AUTO)
        for one in _precisions(package, name, precision)
    ]
    if not found:
        wish = f"backend {backend}, precision {precision}"
        advice = "Precision int8 needs `medseg export --int8`; OpenVINO and ONNX Runtime come with medseg[cpu]."
        raise ConfigError(f"Model {package.card.id} cannot run with {wish} here.", advice=advice)
    return found


def _has(package: ModelPackage, backend: str, *, named: bool) -> bool:
    """Whether `auto` may look at a backend; one that was named is left to say itself what is missing."""
    if named or backend == "torch":
        return named or package.card.network is not None
    if importlib.util.find_spec(backend) is None:
        return False
    return backend == "openvino" or ONNX_FP32 in package.card.files


def _precisions(package: ModelPackage, backend: str, wanted: str) -> list[str]:
    able = _ABLE[backend]
    if wanted != AUTO:
        return [wanted] if wanted in able and (wanted != "int8" or _gated_int8(package)) else []
    floats = _float_precisions(backend)
    return ["int8", *floats] if "int8" in able and _gated_int8(package) else floats


def _float_precisions(backend: str) -> list[str]:
    """The floats of a backend that may be its quickest. A processor that has bf16 may still be slower in it."""
    if backend == "onnxruntime":
        return ["fp32"]
    if backend == "tensorrt" or (backend == "torch" and torch_device() == "cuda"):
        return ["fp16"]
    return ["bf16", "fp32"] if native_bf16() else ["fp32"]


def _gated_int8(package: ModelPackage) -> list[Variant]:
    return [one for one in package.card.variants if one.precision == "int8" and one.backend == "openvino"]
