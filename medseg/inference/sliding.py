"""Sliding windows over a prepared scan: MONAI's, with progress, cancel and finite checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from medseg.errors import ModelError
from medseg.imaging.volume import Array

AIR = -1.0  # the normalised value of air; what lies beyond the scan is air
_LEFT_RIGHT = 2  # of [B, C, i, j, k] in RAS order
MARGIN = 8  # voxels of air around the body that the network still sees
CERTAIN = 10.0  # logit of background where nothing but air is


def count_windows(shape: tuple[int, ...], window: tuple[int, ...], overlap: float) -> int:
    """How many windows cover `shape`."""
    counts = []
    for size, side in zip(shape, window, strict=True):
        step = max(1, int(side * (1 - overlap)))
        counts.append(1 if size <= side else math.ceil((size - side) / step) + 1)
    return math.prod(counts)


def predict_logits(
    network: nn.Module,
    image: Array,
    *,
    window: tuple[int, int, int],
    overlap: float,
    precision: str = "bf16",
    mirrored_channels: Sequence[int] | None = None,
    on_window: Callable[[float], None] = lambda _: None,
) -> Array:
    """Logits float32 [C, i, j, k] of a normalised scan [i, j, k].

    Windows overlap by `overlap` and are blended with Gaussian weights. `mirrored_channels` names, for
    every channel, the one that it becomes when left and right are mirrored: then each window is
    seen mirrored as well, and the mean of both counts. `on_window` gets the share that is done
    after each window and may raise to cancel.

    Raises:
        ModelError: the network returned something that is not finite.
    """
    box = body_box(image)
    inner = np.ascontiguousarray(image[box])
    total, done = count_windows(inner.shape, window, overlap), 0

    def predictor(batch: Tensor) -> Tensor:
        nonlocal done
        batch = batch.to(memory_format=torch.channels_last_3d)
        out: Tensor = network(batch).float()
        if mirrored_channels is not None:
            mirrored: Tensor = network(batch.flip(_LEFT_RIGHT)).float()
            out = (out + mirrored[:, mirrored_channels].flip(_LEFT_RIGHT)) / 2
        done += len(batch)
        on_window(min(1.0, done / total))
        return out

    with torch.inference_mode(), _autocast(precision):
        logits = sliding_window_inference(
            torch.from_numpy(inner)[None, None],
            roi_size=window,
            sw_batch_size=1,
            predictor=predictor,
            overlap=overlap,
            mode="gaussian",
            cval=AIR,
        )
    if not torch.isfinite(logits).all():  # type: ignore[arg-type]
        raise ModelError("The network returned values that are not finite; nothing was segmented.")
    return _fill(logits[0].float().numpy(), box, image.shape)  # type: ignore[index,union-attr]


def body_box(image: Array) -> tuple[slice, ...]:
    """The box of everything denser than air, with a margin; the whole image where that is all or nothing."""
    dense = image > AIR + 1e-3
    if not dense.any():
        return tuple(slice(0, size) for size in image.shape)
    sides = []
    for axis, size in enumerate(image.shape):
        where = np.flatnonzero(dense.any(axis=tuple(a for a in range(image.ndim) if a != axis)))
        sides.append(slice(max(0, int(where[0]) - MARGIN), min(size, int(where[-1]) + 1 + MARGIN)))
    return tuple(sides)


def _fill(inner: Array, box: tuple[slice, ...], shape: tuple[int, ...]) -> Array:
    """Logits of the box in those of the whole scan, where the air around it is background for certain."""
    if inner.shape[1:] == shape:
        return inner
    logits = np.zeros((len(inner), *shape), dtype=np.float32)
    logits[0] = CERTAIN
    logits[(slice(None), *box)] = inner
    return logits


def cpu_precision() -> str:
    """'bf16' where this CPU multiplies it natively; elsewhere it is emulated, and 'fp32' is quicker."""
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def _autocast(precision: str) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
