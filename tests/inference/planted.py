"""A network that thresholds HU, as a real package, and scans in which two organs are planted for it.

The network is a catalogue network with weights set by hand: one channel passes the normalised
scan on, and the head turns it into logits that grow with HU for the hot organ, fall with HU
for the cold one and are zero for background. Both thresholds lie halfway to the water around.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from medseg.imaging.emit import sha256_file
from medseg.imaging.volume import Array, Geometry, Volume
from medseg.labels import LabelTable
from medseg.models.card import Anatomy, InputSpec, ModelCard, NetworkSpec
from medseg.models.store import CARD, WEIGHTS
from medseg.networks.catalogue import build_network
from tests.phantoms import orient, phantom_labels, phantom_volume

WATER_HU, HOT_HU, COLD_HU = 40.0, 400.0, -250.0
WINDOW_HU = (-300.0, 900.0)
ORIGIN_MM = (7.0, -11.0, 23.0)
LABELS = LabelTable.from_names({"parotid_gland_left": 1, "parotid_gland_right": 2})
OPTIONS: dict[str, Any] = {"out_channels": 3, "channels": [1]}


def threshold_weights() -> dict[str, torch.Tensor]:
    """Weights by hand for an Optimized3DUNet of one level and one channel."""
    weights = {
        key: torch.zeros_like(value) for key, value in build_network("Optimized3DUNet", OPTIONS).state_dict().items()
    }
    for number in (1, 2):
        weights[f"stem.conv{number}.weight"][0, 0, 1, 1, 1] = 1.0
        weights[f"stem.norm{number}.weight"][:] = 1.0
        weights[f"stem.norm{number}.running_var"][:] = 1.0
    weights["stem.norm1.bias"][:] = 2.0  # the window's -1 ... 3 becomes positive, which LeakyReLU lets pass
    hot, cold = ((level + WATER_HU) / 2 / 300 + 2 for level in (HOT_HU, COLD_HU))
    weights["head.weight"][:, 0, 0, 0, 0] = torch.tensor([0.0, 10.0, -10.0])
    weights["head.bias"][:] = torch.tensor([0.0, -10 * hot, 10 * cold])
    return weights


def threshold_card(
    spacing_mm: Sequence[float] = (4.0, 4.0, 4.0), *, anatomy: Anatomy | None = None, **changes: Any
) -> ModelCard:
    """The card of the threshold network, files not yet listed."""
    i, j, k = spacing_mm
    wanted = InputSpec(spacing_mm=(i, j, k), window_hu=WINDOW_HU, patch_size=(24, 24, 24), overlap_ratio=0.3)
    fields: dict[str, Any] = {
        "name": "threshold",
        "version": "1.2.3",
        "title": "Two thresholds",
        "description": "Finds what is planted.",
        "labels": LABELS.to_json(),
        "field_of_view": "phantoms",
        "intended_use": "tests",
        "limits": ["finds nothing else"],
        "licence": "Apache-2.0",
        "network": NetworkSpec(name="Optimized3DUNet", options=OPTIONS),
        "input": wanted,
        "anatomy": anatomy,
    }
    return ModelCard(**(fields | changes))


def write_package(folder: Path, card: ModelCard | None = None, weights: dict[str, torch.Tensor] | None = None) -> Path:
    """Write weights and card into `folder`, with the true hash."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights or threshold_weights(), folder / WEIGHTS)
    card = (card or threshold_card()).model_copy(update={"files": {WEIGHTS: sha256_file(folder / WEIGHTS)}})
    (folder / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
    return folder


def planted_volume(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    *,
    orientation: str = "RAS",
    sphere_hu: float = HOT_HU,
    box_hu: float = COLD_HU,
) -> Volume:
    """Water with the phantom's sphere (patient's left) and box (right) in it, and 8 HU of noise."""
    return orient(fill(phantom_volume(shape, spacing_mm).geometry, sphere_hu, box_hu), orientation)


def rotated_volume(
    angle_deg: float, *, sphere_hu: float, box_hu: float, step_mm: float = 3.0, size: int = 44
) -> Volume:
    """The same on a grid that is turned about an axis askew to all three."""
    affine = np.eye(4)
    affine[:3, :3] = _rotation(angle_deg) * step_mm
    affine[:3, 3] = np.array(ORIGIN_MM) - affine[:3, :3] @ np.full(3, (size - 1) / 2)
    return fill(Geometry((size, size, size), affine), sphere_hu, box_hu)


def _rotation(angle_deg: float) -> Array:
    x, y, z = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(angle_deg)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def fill(geometry: Geometry, sphere_hu: float, box_hu: float) -> Volume:
    """Water on `geometry` with both organs planted."""
    empty = Volume(np.zeros(geometry.shape, np.float32), geometry)
    labels = phantom_labels(empty, ORIGIN_MM)
    hu = np.random.default_rng(3).normal(WATER_HU, 8.0, geometry.shape)
    hu += np.where(labels == 1, sphere_hu - WATER_HU, 0) + np.where(labels == 2, box_hu - WATER_HU, 0)
    return Volume(np.round(hu).astype(np.float32), geometry, name="planted")


def planted_labels(volume: Volume) -> Array:
    """What is planted on the grid of `volume`: 1 sphere, 2 box."""
    labels = phantom_labels(volume, ORIGIN_MM)
    labels[labels == 3] = 0
    return labels


def centre_mm(mask: Array, geometry: Geometry, value: int) -> Array:
    """Centre of mass of a label, RAS mm."""
    return np.asarray((geometry.affine @ [*np.argwhere(mask == value).mean(axis=0), 1])[:3])
