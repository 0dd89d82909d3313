"""Weights and inputs that follow from a name alone, so that logits can be compared across libraries.

The logits in data/*.json were computed with these weights by the libraries that the files name.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch


def planted_tensor(name: str, shape: Sequence[int]) -> torch.Tensor:
    """float32 values in a reproducible order; kernels scaled by fan-in, norms near one."""
    phase = zlib.crc32(name.encode()) % 1000
    wave = np.sin(phase + 1.37 * np.arange(math.prod(shape), dtype=np.float64)).reshape(tuple(shape))
    if len(shape) > 1:
        wave = wave * 2 / math.sqrt(math.prod(shape[1:]))
    elif "norm" in name and name.endswith("weight"):
        wave = 1 + 0.2 * wave
    else:
        wave = 0.1 * wave
    return torch.from_numpy(wave.astype(np.float32))


def planted_input(shape: Sequence[int]) -> torch.Tensor:
    """A smooth image without symmetry, [1, 1, *shape]."""
    i, j, k = np.meshgrid(*(np.linspace(0, 1, side) for side in shape), indexing="ij")
    image = np.sin(3 * i + 5 * j * j) + np.cos(7 * k + 2 * i * j)
    return torch.from_numpy(image.astype(np.float32))[None, None]
