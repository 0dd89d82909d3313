"""`medseg benchmark specification`: the specification's promises, row by row, with their baseline measured beside ours.

What takes hours of training is read from the result of `benchmarks/ablation.py`; what needs a GPU says so where there
is none, and is filled by the same command on a machine that has one.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medseg.benchmark.tile import benchmark_tile
from medseg.benchmark.training_step import WIDE, StepCost, compare_steps
from medseg.errors import DataError
from medseg.imaging.volume import Array
from medseg.inference.backends.build import build_predictor
from medseg.inference.backends.predictor import ONNX_FP32, ONNX_INT8
from medseg.inference.backends.torch_backend import load_network
from medseg.inference.predict import predict_blocks
from medseg.models.card import InputSpec
from medseg.models.store import ModelPackage
from medseg.preprocess.blocks import label_grid
from medseg.training.trial import cpu_can

NEEDS_GPU = "needs a GPU"
GRID = (128, 128, 134)  # of a whole-neck scan at 4 mm


@dataclass(frozen=True)
class Row:
    """A promise, and what became of it here.

    Attributes:
        what: is promised.
        claimed: by the specification, in its data centre.
        baseline, ours: measured side by side in this run; '' where they were not.
        ratio: of the two, as a number to compare with `claimed`; '' where they were not.
        on: what it was measured on, or what is missing.
    """

    what: str
    claimed: str
    baseline: str = ""
    ours: str = ""
    ratio: str = ""
    on: str = ""


def specification(
    package: ModelPackage,
    ablation: Path | None = None,
    rounds: int = 3,
    grid: tuple[int, int, int] = GRID,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Measure what can be measured here; minutes.

    Args:
        package: the model.
        ablation: JSON of `benchmarks/ablation.py`, for what takes hours.
        rounds: interleaved, of each pair.
        grid: voxels of the computed scan on the model's grid.
        on_row: told each row as it is found.

    Raises:
        DataError: the ablation's file is none.
    """
    rows = []
    for row in _rows(package, ablation, rounds, grid):
        on_row(row)
        rows.append(row)
    return rows


def _rows(package: ModelPackage, ablation: Path | None, rounds: int, grid: tuple[int, int, int]) -> Iterator[Row]:
    yield _size(package)
    yield _latency(package, rounds)
    yield _volume(package, rounds, grid)
    yield from _training(package, rounds)
    yield _accuracy(package, ablation)


def _size(package: ModelPackage) -> Row:
    what, claimed = "model size", "-78 %"
    if ONNX_INT8 not in package.card.files:
        return Row(what, claimed, on=f"{package.card.id} has no int8 file: `medseg export --int8`")
    sizes = [_fp32_bytes(package), package.file(ONNX_INT8).stat().st_size]
    shown = [f"{size / 1e6:.2f} MB" for size in sizes]
    return Row(what, claimed, f"fp32 {shown[0]}", f"int8 {shown[1]}", _change(*sizes), package.card.id)


def _fp32_bytes(package: ModelPackage) -> int:
    """Of its fp32 ONNX file, else of its numbers at four bytes each: a package keeps its weights in half precision."""
    if ONNX_FP32 in package.card.files:
        return package.file(ONNX_FP32).stat().st_size
    return sum(4 * tensor.numel() for tensor in load_network(package).state_dict().values())


def _latency(package: ModelPackage, rounds: int) -> Row:
    results = benchmark_tile(package, rounds)
    eager = next(result for result in results if str(result.candidate) == "torch fp32")
    best = results[0]
    return Row(
        "latency of a window",
        "-65 %",
        f"PyTorch eager fp32 {eager.best:.3f} s",
        f"{best.candidate} {best.best:.3f} s",
        _change(eager.best, best.best),
        f"{package.card.id}, {_device()}",
    )


def _volume(package: ModelPackage, rounds: int, grid: tuple[int, int, int]) -> Row:
    from monai.inferers.inferer import SlidingWindowInferer

    spec = package.card.input
    assert spec is not None
    image, device = _body(grid), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_network(package).to(memory_format=torch.contiguous_format).to(device)  # type: ignore[call-overload]
    inferer = SlidingWindowInferer(spec.patch_size, 1, spec.overlap_ratio, mode="gaussian", cval=-1.0)
    predictor = build_predictor(package)

    def theirs() -> object:
        with torch.inference_mode():
            return inferer(torch.from_numpy(image)[None, None].to(device), network).argmax(1).cpu()

    ours = _in_turns(theirs, lambda: _labels(predictor, image, spec), rounds)
    return Row(
        "seconds a volume",
        "1.2 s to 0.8 s (x 0.67)",
        f"MONAI's sliding window, eager fp32 {ours[0]:.2f} s",
        f"{predictor.backend} {predictor.precision} {ours[1]:.2f} s",
        f"x {ours[1] / ours[0]:.2f}",
        f"computed body, {' x '.join(map(str, grid))} voxels, {_device()}",
    )


def _labels(predictor: Callable[[torch.Tensor], torch.Tensor], image: Array, spec: InputSpec) -> Array:
    return label_grid(predict_blocks(predictor, image, spec), image.shape)


def _in_turns(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of each, after one run that warms up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for act, found in zip((one, other), seconds, strict=True):
            began = time.perf_counter()
            act()
            found.append(time.perf_counter() - began)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


def _body(grid: tuple[int, int, int]) -> Array:
    """A normalised ellipse of noise in air, as long as the scan."""
    axes = [(np.arange(size) - (size - 1) / 2) / (0.35 * size) for size in grid[:2]]
    inside = (axes[0][:, None] ** 2 + axes[1][None] ** 2 <= 1)[..., None]
    noise = np.random.default_rng(0).normal(0.5, 0.5, grid)
    return np.where(inside, noise, -1.0).astype(np.float32)


def _training(package: ModelPackage, rounds: int) -> Iterator[Row]:
    """Half precision against single: the time and memory of a step."""
    on_gpu = torch.cuda.is_available()
    spec, network = package.card.input, package.card.network
    assert spec is not None
    own = network is not None and network.name == "Optimized3DUNet"
    if not on_gpu and not cpu_can("bf16"):
        yield Row("training throughput and memory", "x 2.3; -32 %", on="this processor cannot train in bf16")
        return
    options = WIDE if on_gpu or network is None or not own else network.options
    patch = (128, 128, 64) if on_gpu else spec.patch_size
    costs = compare_steps(options, patch, 2, torch.device("cuda" if on_gpu else "cpu"), rounds)
    on = f"training step of Optimized3DUNet, 2 x {' x '.join(map(str, patch))} voxels, {_device()}"
    full, half = costs["fp32"], costs["half"]
    yield Row("training throughput", "x 2.3", _step(full), _step(half), f"x {full.seconds / half.seconds:.2f}", on)
    single, less = (f"{'' if on_gpu else 'tensors of '}{cost.memory_mb / 1024:.2f} GB" for cost in (full, half))
    yield Row("training memory", "28 GB to 19 GB (-32 %)", single, less, _change(full.memory_mb, half.memory_mb), on)
    if not on_gpu:
        yield Row("throughput and memory of the specified width 64", "x 2.3; -32 %", on=NEEDS_GPU)


def _step(cost: StepCost) -> str:
    return f"{cost.seconds:.3g} s a step"


def _accuracy(package: ModelPackage, ablation: Path | None) -> Row:
    what, claimed = "Dice, optimised against original", "95.2 % to 97.8 % (+2.6 points)"
    shipped = package.card.metrics.get("mean_dice") if package.card.metrics else None
    on = f"{package.card.id}: mean Dice {shipped}" if shipped is not None else package.card.id
    if ablation is None:
        return Row(what, claimed, on=f"hours of training: benchmarks/ablation.py, then --ablation FILE. {on}")
    try:
        found = json.loads(ablation.read_text(encoding="utf-8"))
        pair = found["rows"]["all"]["against_plain"]
        means = [100 * pair[side]["mean"] for side in ("theirs", "ours")]
        limits = pair["interval_95"] and [100 * limit for limit in pair["interval_95"]]
        gap, steps = 100 * pair["difference"], int(found["steps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{ablation} is no result of benchmarks/ablation.py: {error}.") from error
    ratio = f"{gap:+.1f} points" + (f" ({limits[0]:+.1f} to {limits[1]:+.1f})" if limits else "")
    on = f"{pair['patients']} patients, {steps} steps of training each"
    return Row(what, claimed, f"{means[0]:.1f} %", f"{means[1]:.1f} %", ratio, on)


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.0f} %"


def _device() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
