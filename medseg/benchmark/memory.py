"""`medseg benchmark memory`: a whole-body scan with many classes through the engine, its peak against the forecast.

The network has random weights, so that every class claims voxels everywhere: the hardest case for the way back.
The labels are compared with MONAI's sliding window on a part of the scan that both see alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.imaging.nifti import write_label_map
from medseg.imaging.volume import Array, Geometry
from medseg.inference.backends.torch_backend import TorchPredictor
from medseg.inference.memory import Forecast, Job, fit, measure_tiles, resident_mb
from medseg.inference.streaming import Predict, columns, stream_logits
from medseg.inference.windows import Windows
from medseg.models.card import InputSpec
from medseg.networks.optimized_unet import Optimized3DUNet
from medseg.preprocess.blocks import LogitBlock
from medseg.preprocess.intensity import normalise
from medseg.preprocess.restore import restore_blocks
from medseg.runtime.provenance import machine, peak_memory_mb, reset_peak_memory
from medseg.runtime.room import free_mb

WINDOW_HU = (-300.0, 900.0)
SPEC = InputSpec(spacing_mm=(1.0, 1.0, 1.0), window_hu=WINDOW_HU, patch_size=(64, 64, 64), overlap_ratio=0.25)
AIR_HU = -1024


@dataclass(frozen=True)
class MemoryResult:
    """What one run took, and whether it was right.

    Attributes:
        forecast: what was said before.
        peak_memory_mb, seconds: of the run.
        equal_to_monai: share of voxels of the compared part with MONAI's label.
        compared_voxels: how many these were.
    """

    classes: int
    shape: tuple[int, int, int]
    forecast: Forecast
    peak_memory_mb: float
    seconds: float
    equal_to_monai: float
    compared_voxels: int

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"machine": machine()}


def benchmark_memory(
    classes: int,
    shape: tuple[int, int, int],
    out: Path,
    max_memory_mb: float | None = None,
    on_window: Callable[[float], None] = lambda _: None,
) -> MemoryResult:
    """Segment a computed scan of `shape` voxels into `classes` classes and write its mask to `out`.

    Raises:
        ConfigError: fewer than two or more than 256 classes, or a scan smaller than two windows.
        ResourceError: no plan keeps the limit.
    """
    if not 2 <= classes <= 256 or min(shape) < 2 * SPEC.patch_size[0]:
        raise ConfigError("The benchmark wants 2 to 256 classes and at least 128 voxels along every axis.")
    predictor = _network(classes)
    geometry = Geometry(shape, np.eye(4))
    scan = _scan(shape)
    costs = measure_tiles(predictor, SPEC.patch_size)
    plan = fit(Job(geometry, SPEC, classes, bare=True), costs, resident_mb(), max_memory_mb, free_mb=free_mb())
    reset_peak_memory()
    began = time.perf_counter()
    labels = restore_blocks(_blocks(predictor, scan, plan, on_window), geometry, geometry).labels
    write_label_map(out, labels, geometry)
    seconds, peak_mb = time.perf_counter() - began, peak_memory_mb()
    equal, voxels = _compare(predictor, scan, labels)
    return MemoryResult(classes, shape, plan, peak_mb, round(seconds, 1), equal, voxels)


def _network(classes: int) -> Predict:
    torch.manual_seed(0)
    network = Optimized3DUNet(out_channels=classes, channels=[8, 16], norm="batch").eval()
    with torch.no_grad():  # else the class with the largest sum of weights wins everywhere
        network.head.weight -= network.head.weight.mean(dim=1, keepdim=True)
        network.head.weight /= network.head.weight.norm(dim=1, keepdim=True)
        network.head.bias.zero_()  # type: ignore[union-attr]
    predict = TorchPredictor(network, "fp32")
    return lambda tile: predict(normalise(tile, WINDOW_HU))


def _scan(shape: tuple[int, int, int]) -> Array:
    """Noise in HU, int16: a slice at a time, so that making it takes no more than it holds."""
    rng = np.random.default_rng(0)
    scan = np.empty(shape, dtype=np.int16)
    for k in range(shape[2]):
        scan[..., k] = rng.normal(50, 200, shape[:2])
    return scan


def _blocks(
    predictor: Predict, scan: Array, plan: Forecast, on_window: Callable[[float], None] = lambda _: None
) -> Iterator[LogitBlock]:
    windows = Windows.of(SPEC, scan.shape)
    cuts = columns(scan.shape, plan.parts)
    return stream_logits(predictor, scan[None], windows, cuts=cuts, air=AIR_HU, on_window=on_window)


def _compare(predictor: Predict, scan: Array, labels: Array) -> tuple[float, int]:
    """MONAI on the first two windows of every axis, judged where no third one reaches."""
    from monai.inferers.utils import sliding_window_inference

    starts = Windows.of(SPEC, scan.shape).starts
    seen = tuple(slice(0, axis[1] + side) for axis, side in zip(starts, SPEC.patch_size, strict=True))
    judged = tuple(slice(0, axis[2] if len(axis) > 2 else None) for axis in starts)
    image = torch.from_numpy(scan[seen].astype(np.float32))[None, None]
    with torch.inference_mode():
        logits = sliding_window_inference(image, SPEC.patch_size, 1, predictor, SPEC.overlap_ratio, mode="gaussian")
    assert isinstance(logits, Tensor)
    expected = logits[0].argmax(0).numpy()[judged]
    return float((expected == labels[judged]).mean()), int(expected.size)
