"""The two networks that nnU-Net v2 trains: PlainConvUNet and ResidualEncoderUNet.

Written from their description (Isensee et al., Nature Methods 2021; nnU-Net Revisited, MICCAI 2024) so that
weights trained there fit here: parameters bear the names that nnU-Net's checkpoints use, each once, and only
the full-resolution head is kept. Shapes: [N, in_channels, i, j, k] -> logits [N, out_channels, i, j, k];
every side must be divisible by the product of the strides along its axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError

Triple = Sequence[int]
_NORMS: dict[str, type[nn.Module]] = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}


def _side(values: Triple) -> tuple[int, int, int]:
    i, j, k = values
    return i, j, k


class _Layers:
    """What all layers of a network have in common."""

    def __init__(self, bias: bool, norm: str | None, norm_options: dict[str, Any], negative_slope: float) -> None:
        if norm is not None and norm not in _NORMS:
            raise ConfigError(f"norm must be one of {', '.join(_NORMS)} or null, not {norm!r}.")
        self.bias, self.norm, self.norm_options, self.slope = bias, norm, norm_options, negative_slope

    def normalise(self, channels: int) -> nn.Module:
        return _NORMS[self.norm](channels, **self.norm_options) if self.norm else nn.Identity()

    def activate(self) -> nn.Module:
        return nn.LeakyReLU(self.slope, inplace=True)


class ConvNormAct(nn.Module):
    """Convolution, norm and, unless told otherwise, LeakyReLU."""

    def __init__(
        self, layers: _Layers, ins: int, outs: int, kernel: Triple, stride: Triple, *, act: bool = True, bias: bool
    ) -> None:
        super().__init__()
        padding = _side([(side - 1) // 2 for side in kernel])
        self.conv = nn.Conv3d(ins, outs, _side(kernel), _side(stride), padding, bias=bias)
        self.norm = layers.normalise(outs)
        self.act = layers.activate() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class ConvStack(nn.Module):
    """Several convolutions; the first one strides."""

    def __init__(self, layers: _Layers, count: int, ins: int, outs: int, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        steps = [stride] + [(1, 1, 1)] * (count - 1)
        sizes = [ins] + [outs] * (count - 1)
        self.convs = nn.Sequential(
            *(
                ConvNormAct(layers, size, outs, kernel, step, bias=layers.bias)
                for size, step in zip(sizes, steps, strict=True)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convs(x)
        return out


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, which is averaged down where the block strides (ResNet-D)."""

    def __init__(self, layers: _Layers, ins: int, outs: int, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(layers, ins, outs, kernel, stride, bias=layers.bias)
        self.conv2 = ConvNormAct(layers, outs, outs, kernel, (1, 1, 1), act=False, bias=layers.bias)
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(nn.AvgPool3d(_side(stride), _side(stride)))
        if ins != outs:
            shortcut.append(ConvNormAct(layers, ins, outs, (1, 1, 1), (1, 1, 1), act=False, bias=False))
        self.skip = nn.Sequential(*shortcut)
        self.act = layers.activate()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.conv2(self.conv1(x)) + self.skip(x))
        return out


class ResidualStack(nn.Module):
    """Several residual blocks; the first one strides."""

    def __init__(self, layers: _Layers, count: int, ins: int, outs: int, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        first = ResidualBlock(layers, ins, outs, kernel, stride)
        rest = (ResidualBlock(layers, outs, outs, kernel, (1, 1, 1)) for _ in range(count - 1))
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


class Encoder(nn.Module):
    """Stages from fine to coarse; returns the features of each."""

    def __init__(self, stages: Sequence[nn.Module], stem: nn.Module | None = None) -> None:
        super().__init__()
        if stem is not None:
            self.stem = stem
        self.has_stem = stem is not None
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x) if self.has_stem else x
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Up by transposed convolutions as wide as their strides, joined with the encoder's features."""

    def __init__(
        self,
        layers: _Layers,
        features: Sequence[int],
        kernels: Sequence[Triple],
        strides: Sequence[Triple],
        counts: Sequence[int],
        outs: int,
    ) -> None:
        super().__init__()
        levels = range(len(features) - 2, -1, -1)
        self.transpconvs = nn.ModuleList(
            nn.ConvTranspose3d(
                features[level + 1],
                features[level],
                _side(strides[level + 1]),
                _side(strides[level + 1]),
                bias=layers.bias,
            )
            for level in levels
        )
        self.stages = nn.ModuleList(
            ConvStack(layers, count, 2 * features[level], features[level], kernels[level], (1, 1, 1))
            for level, count in zip(levels, counts, strict=True)
        )
        self.head = nn.Conv3d(features[0], outs, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        x, finer = features[-1], features[-2::-1]
        for up, stage, skip in zip(self.transpconvs, self.stages, finer, strict=True):
            x = stage(torch.cat((up(x), skip), 1))
        out: Tensor = self.head(x)
        return out


class _UNet(nn.Module):
    """Checks the options that both kinds share, and joins encoder and decoder."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out


def _check(levels: int, **lists: Sequence[Any]) -> None:
    for name, values in lists.items():
        wanted = levels - 1 if name == "decoder_convs" else levels
        if len(values) != wanted:
            raise ConfigError(f"{name} must have {wanted} entries for {levels} stages, not {len(values)}.")


class PlainConvUNet(_UNet):
    """nnU-Net's standard U-Net: stacks of convolution, norm and LeakyReLU; strided convolutions go down.

    Args:
        features: channels of each stage, fine to coarse.
        kernels, strides: per stage, per axis.
        convs: convolutions of each encoder stage.
        decoder_convs: those of each decoder stage, coarse to fine; one entry fewer.
        norm: 'instance', 'batch' or None.

    Raises:
        ConfigError: lists of different lengths, an unknown norm.
    """

    def __init__(
        self,
        *,
        features: Sequence[int],
        kernels: Sequence[Triple],
        strides: Sequence[Triple],
        convs: Sequence[int],
        decoder_convs: Sequence[int],
        out_channels: int,
        in_channels: int = 1,
        bias: bool = True,
        norm: str | None = "instance",
        norm_options: dict[str, Any] | None = None,
        negative_slope: float = 0.01,
    ) -> None:
        _check(len(features), kernels=kernels, strides=strides, convs=convs, decoder_convs=decoder_convs)
        layers = _Layers(bias, norm, norm_options or {"affine": True}, negative_slope)
        ins = [in_channels, *features[:-1]]
        rows = zip(convs, ins, features, kernels, strides, strict=True)
        # Each stage is a sequence of one: nnU-Net's may begin with a pooling layer.
        encoder = Encoder([nn.Sequential(ConvStack(layers, *row)) for row in rows])
        super().__init__(encoder, Decoder(layers, features, kernels, strides, decoder_convs, out_channels))


class ResidualEncoderUNet(_UNet):
    """nnU-Net's ResEnc presets: a stem, residual stages going down, plain convolutions going up.

    Args:
        blocks: residual blocks of each encoder stage; the other options are those of `PlainConvUNet`.

    Raises:
        ConfigError: lists of different lengths, an unknown norm.
    """

    def __init__(
        self,
        *,
        features: Sequence[int],
        kernels: Sequence[Triple],
        strides: Sequence[Triple],
        blocks: Sequence[int],
        decoder_convs: Sequence[int],
        out_channels: int,
        in_channels: int = 1,
        bias: bool = True,
        norm: str | None = "instance",
        norm_options: dict[str, Any] | None = None,
        negative_slope: float = 0.01,
    ) -> None:
        _check(len(features), kernels=kernels, strides=strides, blocks=blocks, decoder_convs=decoder_convs)
        layers = _Layers(bias, norm, norm_options or {"affine": True}, negative_slope)
        stem = ConvStack(layers, 1, in_channels, features[0], kernels[0], (1, 1, 1))
        ins = [features[0], *features[:-1]]
        rows = zip(blocks, ins, features, kernels, strides, strict=True)
        encoder = Encoder([ResidualStack(layers, *row) for row in rows], stem)
        super().__init__(encoder, Decoder(layers, features, kernels, strides, decoder_convs, out_channels))
