"""StudyView -> the arrays that the study encoder takes, and their batches.

Three looks at one study: a coarse volume (8 mm, five channels), a table of every axial slice (4 mm), and a row of
numbers for every organ. Nothing here is learned; all numbers are scaled to about one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medseg.imaging.volume import Array
from vlretrieval.profile import GAS_HU, SLICE_ML, OrganProfile, Profile, build_profile, other_side
from vlretrieval.view import STEP_MM, StudyView

PLANE = (64, 40)  # coarse voxels from right to left and from back to front: 51 x 32 cm around the body
CHANNELS = 5
SLICES = 128
SCAN_NUMBERS = 10
ORGAN_NUMBERS = 12
NEAR_SLICES = (2, 15)  # from about one to six centimetres beyond an organ's end
_PLAIN_ROWS = 5


def slice_rows(num_organs: int) -> int:
    """Rows of the table of slices."""
    return _PLAIN_ROWS + 2 * num_organs


@dataclass(frozen=True)
class StudyInput:
    """One study, ready for the encoder.

    Attributes:
        volume: uint8 [5, 64, 40, K]: soft tissue, fat, dense, gas, body, each as 0 ... 255.
        profile: what the slices hold; rows and organ numbers are computed from it.
    """

    volume: Array
    profile: Profile

    def cut(self, low: int, high: int) -> StudyInput:
        """Slices `low` to before `high` of the 4 mm grid."""
        return StudyInput(self.volume[..., low // 2 : (high + 1) // 2], self.profile.cut(low, high))

    def mirrored(self) -> StudyInput:
        """The mirrored patient."""
        return StudyInput(self.volume[:, ::-1], self.profile.mirrored())


def build_input(view: StudyView) -> StudyInput:
    """Look at a study; the same for training and for search."""
    return StudyInput(_volume(view), build_profile(view))


def _volume(view: StudyView) -> Array:
    hu, body = view.hu.astype(np.float32), view.body
    channels = [
        _pool(np.clip((hu + 200) / 400, 0, 1), "mean"),
        _pool((hu > -190) & (hu < -30) & body, "mean"),
        _pool(np.clip((hu - 200) / 1500, 0, 1), "max"),
        _pool((hu < GAS_HU) & body, "mean"),
        _pool(body, "mean"),
    ]
    stacked = np.round(np.stack(channels) * 255).astype(np.uint8)
    return np.stack([_centred(channel, channels[-1]) for channel in stacked])


def _pool(array: Array, how: str) -> Array:
    """Blocks of 2 x 2 x 2 voxels, filled up by nothing at the far ends."""
    padded = np.pad(np.asarray(array, np.float32), [(0, size % 2) for size in array.shape])
    i, j, k = (size // 2 for size in padded.shape)
    blocks = padded.reshape(i, 2, j, 2, k, 2)
    return blocks.max(axis=(1, 3, 5)) if how == "max" else blocks.mean(axis=(1, 3, 5))


def _centred(channel: Array, body: Array) -> Array:
    """The plane around the body's middle."""
    out = np.zeros((*PLANE, channel.shape[2]), dtype=channel.dtype)
    source, target = [], []
    for axis, size in enumerate(PLANE):
        start = _middle(body, axis) - size // 2
        low, high = max(0, start), min(channel.shape[axis], start + size)
        source.append(slice(low, max(low, high)))
        target.append(slice(low - start, low - start + max(0, high - low)))
    out[tuple(target)] = channel[tuple(source)]
    return out


def _middle(body: Array, axis: int) -> int:
    weight = body.sum(axis=tuple(other for other in range(3) if other != axis))
    total = float(weight.sum())
    return round(float((weight * np.arange(len(weight))).sum()) / total) if total else body.shape[axis] // 2


def slice_table(profile: Profile, organs: Sequence[str]) -> Array:
    """[rows, SLICES] float32; the last row tells where the scan is."""
    count = min(len(profile.body), SLICES)
    rows = [profile.body / 1500, profile.fat / 500, np.log1p(profile.metal), np.log1p(profile.gas) / 3]
    for name in organs:
        organ = profile.organs.get(name)
        rows += [np.zeros(len(profile.body))] * 2 if organ is None else _organ_rows(organ)
    out = np.zeros((slice_rows(len(organs)), SLICES), np.float32)
    out[:-1, :count] = np.stack(rows)[:, :count]
    out[-1, :count] = 1
    return out


def _organ_rows(organ: OrganProfile) -> list[Array]:
    return [organ.voxels / 100, organ.hu / np.maximum(1, organ.voxels) / 100]


def organ_table(profile: Profile, organs: Sequence[str]) -> Array:
    """[organs, 2 x ORGAN_NUMBERS]: of each organ, then of the same organ of the other side."""
    rows = {name: _organ_numbers(profile, name) for name in {*organs, *map(other_side, organs)}}
    pairs = [np.concatenate([rows[name], rows[other_side(name)]]) for name in organs]
    return np.stack(pairs).astype(np.float32) if pairs else np.zeros((0, 2 * ORGAN_NUMBERS), np.float32)


def _organ_numbers(profile: Profile, name: str) -> Array:
    organ = profile.organs.get(name)
    ends = organ.ends if organ is not None else None
    if organ is None or ends is None:
        return np.zeros(ORGAN_NUMBERS)
    above = len(profile.body) - ends[1]
    return np.array(
        [
            1.0,
            np.log1p(organ.volume_ml) - 3,
            organ.mean_hu / 100,
            organ.sd_hu / 100,
            ends[0] * STEP_MM / 100,
            above * STEP_MM / 100,
            float(ends[0] == 0 or above == 0),
            (ends[1] - ends[0]) * STEP_MM / 50,
            _larger_than_other_side(profile, name, organ),
            *_body_around(profile.body, *ends),
        ]
    )


def _larger_than_other_side(profile: Profile, name: str, organ: OrganProfile) -> float:
    """Logarithm of the ratio of both sides' volumes; 0 where there is no other side."""
    other = profile.organs.get(other_side(name))
    return 0.0 if other is None else float(np.log((organ.volume_ml + 0.5) / (other.volume_ml + 0.5)))


def _body_around(body: Array, low: int, high: int) -> list[float]:
    """Cross-section of the body at an organ, below and above it; 0 where the scan ends before."""
    near, far = NEAR_SLICES
    parts = (body[low:high], body[max(0, low - far) : max(0, low - near)], body[high + near : high + far])
    return [float(part.mean()) / 1000 if len(part) else 0.0 for part in parts]


def scan_numbers(profile: Profile) -> Array:
    """[SCAN_NUMBERS]: how it was scanned, and the body as a whole."""
    body = max(1.0, float(profile.body.sum()))
    lower = profile.gas[: int(0.4 * len(profile.gas))]
    return np.array(
        [
            *np.log(profile.spacing_mm),
            profile.field_mm / 500,
            profile.length_mm / 200,
            body * SLICE_ML / 8000,
            profile.body.max(initial=0) / 3000,
            3 * profile.fat.sum() / body,
            np.log(profile.metal.sum() * SLICE_ML + 0.05),
            np.log1p(lower.sum() * SLICE_ML) / 4,
        ],
        dtype=np.float32,
    )


@dataclass(frozen=True)
class StudyBatch:
    """volume [B, 5, 64, 40, K], slices [B, rows, SLICES], organs [B, O, 2 x ORGAN_NUMBERS], scan [B, SCAN_NUMBERS]."""

    volume: Tensor
    slices: Tensor
    organs: Tensor
    scan: Tensor

    def __len__(self) -> int:
        return len(self.scan)

    def to(self, device: torch.device | str) -> StudyBatch:
        """The same on another device."""
        return StudyBatch(*(tensor.to(device) for tensor in (self.volume, self.slices, self.organs, self.scan)))


def collate(inputs: Sequence[StudyInput], organs: Sequence[str], *, volume: bool = True) -> StudyBatch:
    """Studies of different lengths become one batch; shorter volumes end in nothing.

    Without `volume`, which takes most of the time, that of the batch is empty.
    """
    return StudyBatch(
        torch.from_numpy(_volumes(inputs if volume else [])),
        torch.from_numpy(np.stack([slice_table(entry.profile, organs) for entry in inputs])),
        torch.from_numpy(np.stack([organ_table(entry.profile, organs) for entry in inputs])),
        torch.from_numpy(np.stack([scan_numbers(entry.profile) for entry in inputs])),
    )


def _volumes(inputs: Sequence[StudyInput]) -> Array:
    longest = max((entry.volume.shape[-1] for entry in inputs), default=0)
    volumes = np.zeros((len(inputs), CHANNELS, *PLANE, longest + longest % 2), np.float32)
    for number, entry in enumerate(inputs):
        volumes[number, ..., : entry.volume.shape[-1]] = entry.volume
    return volumes / np.float32(255)
