"""VisionEncoder: CT volume -> vector, by MONAI's 3-D ResNets or a small network for CPUs."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from monai.networks import nets
from torch import Tensor, nn

from medseg.errors import ConfigError, ModelIntegrityError
from vlretrieval.weights import find_weights, read_tensors

# name: (builder in MONAI, width of its vector)
RESNETS: dict[str, tuple[str, int]] = {
    "resnet10": ("resnet10", 512),
    "resnet18": ("resnet18", 512),
    "resnet34": ("resnet34", 512),
    "resnet50": ("resnet50", 2048),
    "resnet101": ("resnet101", 2048),
    "resnet152": ("resnet152", 2048),
}
SMALL_DIM = 128


class VisionEncoder(nn.Module):
    """A CT volume as a vector.

    Args:
        pretrained: `resnet10` ... `resnet152` (3-D, MONAI) or `small`.
        weights: file of pretrained weights; sought in $VLRETRIEVAL_WEIGHTS if not given, and random where there is
            none. 2-D kernels (ImageNet) are inflated along the third axis, as in I3D.
        channels: of the input; 1 is HU scaled to about -1 ... 1.

    Raises:
        ConfigError: no such network.
        UnknownModelError: `weights` are not there.
        ModelIntegrityError: `weights` are of another network.
    """

    def __init__(self, pretrained: str = "resnet152", *, weights: str | Path | None = None, channels: int = 1) -> None:
        super().__init__()
        self.name, self.channels = pretrained, channels
        if pretrained == "small":
            self.network: nn.Module = SmallVolumeNet(channels)
            self.output_dim = SMALL_DIM
        elif pretrained in RESNETS:
            builder, self.output_dim = RESNETS[pretrained]
            self.network = _resnet(getattr(nets, builder), channels)
        else:
            known = ", ".join([*RESNETS, "small"])
            raise ConfigError(f"There is no vision encoder {pretrained!r}.", advice=f"There are: {known}.")
        self.origin = "random"
        found = find_weights(pretrained, weights) if pretrained != "small" or weights else None
        if found is not None:
            load_inflated(self.network, read_tensors(_file_of(found)), found)
            self.origin = found.name

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, i, j, k] (or [B, i, j, k] with one channel) -> [B, output_dim]."""
        images = images.unsqueeze(1) if images.ndim == 4 and self.channels == 1 else images
        if images.ndim != 5 or images.shape[1] != self.channels:
            raise ConfigError(f"Images of shape {tuple(images.shape)} are not [B, {self.channels}, i, j, k].")
        out: Tensor = self.network(images)
        return out


def _resnet(build: Callable[..., nn.Module], channels: int) -> nn.Module:
    # feed_forward=False leaves out the classifier: what comes is the vector.
    return build(spatial_dims=3, n_input_channels=channels, feed_forward=False)


def _file_of(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(file for ending in ("*.safetensors", "*.pth", "*.pt") for file in path.glob(ending))
    if len(files) != 1:
        raise ModelIntegrityError(f"{path} holds {len(files)} files of weights; one is wanted.")
    return files[0]


def load_inflated(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load weights that may come from a 2-D network of the same shape; a classifier at its end is left out."""
    wanted = network.state_dict()
    fitted = {name: _fit(tensors[name], wanted[name]) for name in wanted if name in tensors}
    missing = [name for name in wanted if name not in fitted and not name.endswith("num_batches_tracked")]
    unfit = [name for name, tensor in fitted.items() if tensor.shape != wanted[name].shape]
    if missing or unfit:
        text = f"{path.name} is of another network: {len(missing)} tensors are missing, {len(unfit)} differ in shape"
        raise ModelIntegrityError(f"{text} ({', '.join((missing + unfit)[:3])}).")
    network.load_state_dict(wanted | fitted)


def _fit(tensor: Tensor, wanted: Tensor) -> Tensor:
    if wanted.ndim == 5 and tensor.ndim == 4:
        depth = wanted.shape[-1]
        tensor = tensor.unsqueeze(-1).repeat(1, 1, 1, 1, depth) / depth
    if wanted.ndim == 5 and tensor.ndim == 5 and wanted.shape[1] == 1 and tensor.shape[1] == 3:
        tensor = tensor.sum(dim=1, keepdim=True)  # a grey picture in three equal channels
    return tensor.to(wanted.dtype)


class SmallVolumeNet(nn.Module):
    """Four strided convolutions and a mean: [B, C, i, j, k] -> [B, 128]. A few hundred thousand weights."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (16, 32, 64, SMALL_DIM)) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for width in widths:
            steps += [nn.Conv3d(channels, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.GELU()]
            channels = width
        self.steps = nn.Sequential(*steps)

    def forward(self, images: Tensor) -> Tensor:
        """The mean over what is left of the volume."""
        return self.steps(images).mean(dim=(2, 3, 4))


class SliceNet(nn.Module):
    """A table of slices [B, rows, slices] -> [B, 2 x width]: mean and maximum of what it finds along the body."""

    def __init__(self, rows: int, width: int = 96) -> None:
        super().__init__()
        self.output_dim = 2 * width
        self.steps = nn.Sequential(
            nn.Conv1d(rows, 48, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(48, 64, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(64, width, 5, stride=2, padding=2),
            nn.GELU(),
        )

    def forward(self, slices: Tensor) -> Tensor:
        found = self.steps(slices)
        return torch.cat([found.mean(dim=2), found.amax(dim=2)], dim=1)


def mlp(*widths: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with GELU between them."""
    steps: list[Any] = []
    for number, (width_in, width_out) in enumerate(pairwise(widths)):
        if number:
            steps += [nn.GELU(), nn.Dropout(dropout)]
        steps.append(nn.Linear(width_in, width_out))
    return nn.Sequential(*steps)


def count_weights(module: nn.Module) -> int:
    """Number of weights."""
    return sum(math.prod(tensor.shape) for tensor in module.parameters())
