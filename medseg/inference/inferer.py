"""StreamingInferer: the sliding window of this engine as a MONAI `Inferer`, for anybody's pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import Inferer
from torch import Tensor

from medseg.errors import ConfigError
from medseg.inference.streaming import columns, stream_logits
from medseg.inference.windows import Windows
from medseg.preprocess.blocks import label_grid


class StreamingInferer(Inferer):
    """`SlidingWindowInferer` followed by argmax, without the logits of the whole volume in memory.

    Labels are those of MONAI's sliding window with Gaussian blending and the same overlap, up to ties within
    rounding. Peak memory is classes x plane x window instead of classes x volume.

    Args:
        roi_size: window in voxels.
        overlap: share by which windows overlap, 0 ... 1 (1 excluded).
        parts: into how many columns the plane is cut, along the first and second axis, to save more.
        cval: value of what lies beyond the image.

    Raises:
        ConfigError: a window, an overlap or parts out of range.
    """

    def __init__(
        self, roi_size: tuple[int, int, int], overlap: float = 0.25, parts: tuple[int, int] = (1, 1), cval: float = 0.0
    ) -> None:
        super().__init__()
        if len(roi_size) != 3 or min(roi_size) < 1 or not 0 <= overlap < 1 or min(parts) < 1:
            raise ConfigError(
                f"StreamingInferer out of range: roi_size {roi_size}, overlap {overlap} or parts {parts} out of range."
            )
        self.roi_size, self.overlap, self.parts, self.cval = roi_size, overlap, parts, cval

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Labels int64 [B, 1, i, j, k] of `inputs` [B, channels, i, j, k].

        Raises:
            ConfigError: `inputs` is not a batch of volumes.
        """
        if inputs.ndim != 5:
            raise ConfigError(f"StreamingInferer wants [B, C, i, j, k], not {list(inputs.shape)}.")
        return torch.stack([self._labels(image, lambda x: network(x, *args, **kwargs)) for image in inputs])

    @torch.no_grad()
    def _labels(self, image: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        shape = tuple(image.shape[1:])
        blocks = stream_logits(
            lambda tile: network(tile.to(image.device)).cpu(),
            image.cpu().numpy(),
            Windows.over(shape, self.roi_size, self.overlap),
            cuts=columns(shape, self.parts),
            air=self.cval,
        )
        return torch.from_numpy(label_grid(blocks, shape).astype(np.int64))[None].to(image.device)
