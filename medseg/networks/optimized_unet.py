"""Optimized3DUNet: the 3-D U-Net of the specification, from width 64 down to CPU presets.

Shapes: B batch, C channels, D H W space. Source: Cicek et al., 3D U-Net (MICCAI 2016);
residual blocks as in nnU-Net ResEnc (Isensee et al. 2024); attention gates by Oktay et
al. (2018); deep supervision by Lee et al. (2015); recomputed levels by Chen et al. (2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.recompute import recomputed

_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d}


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    return _NORMS[kind](channels, affine=True)


class DoubleConv(nn.Module):
    """Two 3x3x3 convolutions (or `convs=1`), each with norm and LeakyReLU; optionally with a shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: str = "batch", residual: bool = False, convs: int = 2
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = _norm(norm, out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False) if convs == 2 else None
        self.norm2 = _norm(norm, out_channels) if convs == 2 else None
        self.act = nn.LeakyReLU(0.01, inplace=True)
        self.shortcut = nn.Conv3d(in_channels, out_channels, 1, bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm1(self.conv1(x))
        if self.conv2 is not None and self.norm2 is not None:
            out = self.norm2(self.conv2(self.act(out)))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return self.act(out)


class AttentionGate(nn.Module):
    """Weights a skip connection by the coarser features that ask for it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.query = nn.Conv3d(channels, inner, 1)
        self.key = nn.Conv3d(channels, inner, 1)
        self.score = nn.Conv3d(inner, 1, 1)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        mixed = torch.relu(self.query(coarse) + self.key(skip))
        return skip * torch.sigmoid(self.score(mixed))


class Up(nn.Module):
    """Twofold upsampling by transposed convolution, skip, DoubleConv."""

    def __init__(
        self, in_channels: int, skip_channels: int, norm: str, residual: bool, attention: bool, convs: int, add: bool
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(in_channels, skip_channels, 2, stride=2)
        self.gate = AttentionGate(skip_channels) if attention else None
        self.add = add
        self.conv = DoubleConv(skip_channels if add else 2 * skip_channels, skip_channels, norm, residual, convs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        if self.gate is not None:
            skip = self.gate(skip, x)
        return self.conv(x + skip if self.add else torch.cat([x, skip], dim=1))


def _check_options(sizes: Sequence[int], norm: str, deep_supervision: int) -> None:
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"Optimized3DUNet needs one level at least, and positive channels; not {list(sizes)}.")
    if norm not in (*_NORMS, "group"):
        raise ConfigError(f"Optimized3DUNet has no norm {norm!r}.", advice=f"Choose {', '.join(_NORMS)} or group.")
    if not 0 <= deep_supervision < len(sizes):
        raise ConfigError(
            f"{len(sizes)} levels have room for 0 to {len(sizes) - 1} deep heads, not {deep_supervision}."
        )


def _check_cuts(sizes: Sequence[int], stem_convs: int, decoder_convs: int, added_skips: int, recompute: int) -> None:
    if {stem_convs, decoder_convs} - {1, 2}:
        raise ConfigError(f"stem_convs and decoder_convs are 1 or 2, not {stem_convs} and {decoder_convs}.")
    if not 0 <= added_skips < len(sizes):
        raise ConfigError(f"{len(sizes)} levels have 0 to {len(sizes) - 1} skips to add, not {added_skips}.")
    if not 0 <= recompute <= len(sizes):
        raise ConfigError(f"{len(sizes)} levels have 0 to {len(sizes)} to recompute, not {recompute}.")


class Optimized3DUNet(nn.Module):
    """3-D U-Net: DoubleConv stem, MaxPool3d on the way down, skips on the way up.

    Args:
        in_channels: input channels (1 for CT).
        out_channels: classes, background included.
        width: channels of the stem; each level doubles them, up to `max_width`.
        depth: number of levels; space must divide by 2 ** (depth - 1).
        channels: channels per level, in place of `width`, `depth` and `max_width`.
        norm: 'batch' (keeps a window's result independent of its size), 'instance' or 'group'.
        residual: shortcuts in every block.
        attention: attention gates on the skips.
        deep_supervision: number of extra heads at half, quarter ... resolution while training.
        stem_convs, decoder_convs: convolutions of the stem and of each block on the way up, 1 or 2. Most of a
            CPU's time goes into the finest level.
        recompute: of how many of the finest levels training computes the features again on the way back, in place of
            keeping them: less memory for more time, the same gradients. The finest level holds most of a U-Net's.
        added_skips: how many of the finest skips are added instead of concatenated: half the channels to convolve.

    Shapes:
        forward: [B, in, D, H, W] -> [B, out, D, H, W]; in training with deep supervision a
        list, full resolution first.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        width: int = 64,
        depth: int = 5,
        max_width: int = 512,
        channels: Sequence[int] | None = None,
        norm: str = "batch",
        residual: bool = False,
        attention: bool = False,
        deep_supervision: int = 0,
        stem_convs: int = 2,
        decoder_convs: int = 2,
        added_skips: int = 0,
        recompute: int = 0,
    ) -> None:
        super().__init__()
        doubled = [min(width * 2**level, max_width) for level in range(depth)]
        sizes = doubled if channels is None else list(channels)
        _check_options(sizes, norm, deep_supervision)
        _check_cuts(sizes, stem_convs, decoder_convs, added_skips, recompute)
        self.recompute = recompute
        self.stride = 2 ** (len(sizes) - 1)
        self.stem = DoubleConv(in_channels, sizes[0], norm, residual, stem_convs)
        self.pool = nn.MaxPool3d(2)
        self.down = nn.ModuleList(DoubleConv(a, b, norm, residual) for a, b in pairwise(sizes))
        pairs = list(zip(sizes[::-1], sizes[-2::-1], strict=False))
        self.up = nn.ModuleList(
            Up(a, b, norm, residual, attention, decoder_convs, n >= len(pairs) - added_skips)
            for n, (a, b) in enumerate(pairs)
        )
        self.head = nn.Conv3d(sizes[0], out_channels, 1)
        self.deep_heads = nn.ModuleList(nn.Conv3d(sizes[n + 1], out_channels, 1) for n in range(deep_supervision))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        skips = [self._run(self.stem, 0, x)]
        for level, block in enumerate(self.down, 1):
            skips.append(self._run(block, level, self.pool(skips[-1])))
        features = [skips.pop()]
        for block in self.up:
            level = len(skips) - 1
            features.append(self._run(block, level, features[-1], skips.pop()))
        logits: Tensor = self.head(features[-1])
        if not (self.training and self.deep_heads):
            return logits
        return [logits] + [head(features[-2 - n]) for n, head in enumerate(self.deep_heads)]

    def _run(self, block: nn.Module, level: int, *inputs: Tensor) -> Tensor:
        """The block's features, kept for the way back or not."""
        again = self.training and torch.is_grad_enabled() and level < self.recompute
        found: Tensor = recomputed(block, *inputs) if again else block(*inputs)
        return found
