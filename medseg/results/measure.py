"""A mask and its scan -> a row per organ."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array, Geometry, Volume
from medseg.labels import Label, LabelTable
from medseg.preprocess.restore import LabelMap


@dataclass(frozen=True)
class Measurement:
    """One organ in numbers.

    Attributes:
        organ: its name. label: its value in the mask.
        volume_ml: voxels x voxel volume.
        mean_hu, sd_hu: over the organ's voxels; None where it is empty.
        extent_mm: how far it reaches towards the patient's right, anterior and superior, whatever way the scan lies.
        slices: number of slices (along the axis nearest to superior) that hold it.
        touches_edge: it reaches the first or last voxel of the scan and may be cut off.
        mean_probability: mean of the decided label's probability; None for rules.
    """

    organ: str
    label: int
    volume_ml: float
    mean_hu: float | None
    sd_hu: float | None
    extent_mm: tuple[float, float, float]
    slices: int
    touches_edge: bool
    mean_probability: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"extent_mm": list(self.extent_mm)}


def measure(label_map: LabelMap, volume: Volume, labels: LabelTable) -> tuple[Measurement, ...]:
    """One row for every organ of the table, empty ones included."""
    boxes = ndimage.find_objects(label_map.labels, max_label=max(labels.names.values()))
    return tuple(_row(label, boxes[label.value - 1], label_map, volume) for label in labels)


def _row(label: Label, box: tuple[slice, ...] | None, label_map: LabelMap, volume: Volume) -> Measurement:
    if box is None:
        return Measurement(label.name, label.value, 0.0, None, None, (0.0, 0.0, 0.0), 0, False, None)
    inside = label_map.labels[box] == label.value
    hu = volume.hu[box][inside].astype(np.float64)
    sure = label_map.confidence[box][inside]
    return Measurement(
        organ=label.name,
        label=label.value,
        volume_ml=round(float(inside.sum()) * label_map.geometry.voxel_ml, 3),
        mean_hu=round(float(hu.mean()), 1),
        sd_hu=round(float(hu.std()), 1),
        extent_mm=_extent_mm(inside, label_map.geometry),
        slices=_slices(inside, label_map.geometry),
        touches_edge=_touches_edge(box, label_map.labels.shape),
        mean_probability=round(float(sure.mean()) / 255, 3) if sure.any() else None,
    )


def _ras_axes(geometry: Geometry) -> Array:
    """For right, anterior, superior: the array axis nearest to it."""
    order: Array = np.argsort(geometry.to_canonical[:, 0])
    return order


def _extent_mm(inside: Array, geometry: Geometry) -> tuple[float, float, float]:
    """Voxels are boxes, with corners half a step away. Ends of the lines along k alone can be the furthest ones."""
    lines = np.argwhere(inside.any(axis=2))
    held = inside[tuple(lines.T)]
    first, last = held.argmax(axis=1), held.shape[1] - 1 - held[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.column_stack([lines, k]) for k in (first, last)])
    turn = geometry.affine[:3, :3]
    spans = np.ptp(ends @ turn.T, axis=0) + np.abs(turn).sum(axis=1)
    right, anterior, superior = (round(float(span), 1) for span in spans)
    return right, anterior, superior


def _slices(inside: Array, geometry: Geometry) -> int:
    superior = int(_ras_axes(geometry)[2])
    return int(inside.any(axis=tuple(a for a in range(3) if a != superior)).sum())


def _touches_edge(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(side.start == 0 or side.stop == size for side, size in zip(box, shape, strict=True))
