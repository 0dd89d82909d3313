"""ForeignModel: another tool's model, understood, before it becomes a package."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from medseg.errors import ModelImportError
from medseg.models.card import Blend
from medseg.preprocess.intensity import Intensity
from medseg.preprocess.prepare import AIR_HU, METAL_HU

Triple = tuple[float, float, float]
_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


@dataclass(frozen=True)
class Scale:
    """How HU become a network's input: clip to the window, then HU * factor + offset.

    With 'z-score' the scan's own mean and deviation come first, and factor and offset apply to the result.
    """

    window_hu: tuple[float, float] = (AIR_HU, METAL_HU)
    factor: float = 1.0
    offset: float = 0.0
    intensity: Intensity = "window"

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.window_hu, self.factor, self.offset))) or self.factor <= 0:
            raise ValueError(f"{self} is no scale")

    def adapted(self, window_hu: tuple[float, float] | None = None) -> tuple[float, float]:
        """(scale, shift) from what `prepare` gives, for this window or another, to what the network wants."""
        if self.intensity.endswith("z-score"):
            return self.factor, self.offset
        low, high = window_hu or self.window_hu
        unit = (high - low) / 4
        return self.factor * unit, self.factor * (low + unit) + self.offset

    @property
    def beyond(self) -> float:
        """Zero, with which other tools pad, in the units of what `prepare` gives."""
        scale, shift = self.adapted()
        return -shift / scale


@dataclass(frozen=True)
class ForeignModel:
    """What an importer reads.

    Attributes:
        path: the folder it came from.
        tool: who trained it, for people.
        labels: organs in the order of the network's channels after background.
        network, options: a catalogue network.
        count: members (folds); names of `weights` begin with 'members.N.'.
        around: options of `Adapted` other than scale and shift.
        scale: what becomes of HU.
        spacing_mm, patch_size: in RAS order.
        blend: how overlapping windows share a voxel.
        facts: provenance for the card.
        spread: directions of nnU-Net's own window layout; None for ours.
        fitted: windows lie over the patient alone, as few as that takes.
        mirror_axes: in RAS order, along which every combination of a window's mirror images counts.
        mirror_even: only combinations of an even number of them.
        remarks: what a user has to know; they become limits of the card.
    """

    path: Path
    tool: str
    labels: tuple[str, ...]
    network: str
    options: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    scale: Scale
    spacing_mm: Triple
    patch_size: tuple[int, int, int]
    overlap_ratio: float
    blend: Blend = "gaussian"
    count: int = 1
    around: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    spread: str | None = None
    fitted: bool = False
    mirror_axes: tuple[int, ...] = ()
    mirror_even: bool = False
    remarks: tuple[str, ...] = ()
    description: str = ""

    @property
    def adapted_options(self) -> dict[str, Any]:
        """Options of the catalogue's `Adapted`."""
        scale, shift = self.scale.adapted()
        return {
            "network": self.network,
            "options": dict(self.options),
            "count": self.count,
            "scale": scale,
            "shift": shift,
            **self.around,
        }


def is_orientation(codes: str) -> bool:
    """Whether three letters name an axis of the body each, such as RAS or LPI."""
    return sorted(_AXIS.get(letter, -1) for letter in codes) == [0, 1, 2]


def in_ras(values: Sequence[Any], codes: str) -> tuple[Any, Any, Any]:
    """Values per axis of an array whose axes grow to `codes`, in RAS order."""
    by_axis = {_AXIS[letter]: value for letter, value in zip(codes, values, strict=True)}
    return by_axis[0], by_axis[1], by_axis[2]


def in_ras_axes(axes: Sequence[int], codes: str) -> tuple[int, ...]:
    """Axes of an array whose axes grow to `codes`, as those of an array in RAS order."""
    return tuple(sorted(_AXIS[codes[axis]] for axis in axes))


def organ_names(names: Iterable[str], path: Path) -> tuple[str, ...]:
    """Names as this project writes them: lower case, words joined by underscores.

    Raises:
        ModelImportError: a name is empty, or two become one.
    """
    slugs = tuple(re.sub(r"\W+", "_", name.strip().lower()).strip("_") for name in names)
    if not slugs or "" in slugs or len(set(slugs)) != len(slugs):
        raise ModelImportError(path, f"its label names are empty or alike: {', '.join(slugs)}.", advice="Rename them.")
    return slugs
