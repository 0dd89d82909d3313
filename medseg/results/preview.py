"""preview.png: three planes with coloured organs and a legend, for those who would rather look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from medseg.imaging.volume import Array, Volume, reorient
from medseg.labels import LabelTable
from medseg.results.measure import Measurement

WINDOW_HU = (-160.0, 240.0)
OPACITY = 0.45
# Plane: title, the RAS axis that is cut, letters left/right/top/bottom of the picture.
PLANES = (
    ("Axial", 2, ("R", "L", "A", "P")),
    ("Coronal", 1, ("R", "L", "S", "I")),
    ("Sagittal", 0, ("A", "P", "S", "I")),
)


def write_preview(
    path: Path, volume: Volume, mask: Array, labels: LabelTable, measurements: Sequence[Measurement]
) -> None:
    """Draw the slices through the middle of the organs, as radiologists see them, to a PNG."""
    ornt = volume.geometry.to_canonical
    hu, organs = reorient(volume.hu, ornt), reorient(mask, ornt)
    spacing = volume.geometry.canonical().spacing_mm
    centre = busiest_slices(organs)
    figure = Figure(figsize=(15, 6), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, axis, letters) in zip(figure.subplots(1, 3), PLANES, strict=True):
        picture = blend(plane(hu, axis, centre[axis]), plane(organs, axis, centre[axis]), labels)
        across, up = [spacing[a] for a in range(3) if a != axis]
        axes.imshow(picture, aspect=up / across, interpolation="nearest")
        axes.set_title(f"{title} {centre[axis] + 1}/{organs.shape[axis]}", color="white", fontsize=11)
        _letters(axes, letters)
        axes.set_axis_off()
    _legend(figure, labels, measurements)
    figure.savefig(path, dpi=90, facecolor="black", format="png", metadata={"Software": "medseg"})


def plane(array: Array, axis: int, index: int) -> Array:
    """One slice of an RAS array, turned as radiologists look at it (patient's right on the left).

    Rows run from anterior or superior downwards; columns from the patient's right, or from
    anterior in the sagittal plane.
    """
    cut = array[(slice(None),) * axis + (index,)]  # not `take`, which copies a turned scan whole
    return np.asarray(cut.T[::-1, ::-1])


def busiest_slices(organs: Array) -> tuple[int, int, int]:
    """For each RAS axis the slice with most different organs, then most organ voxels."""
    scores = [np.zeros(size) for size in organs.shape]
    boxes = ndimage.find_objects(organs)
    for value, box in enumerate(boxes, start=1):
        if box is None:
            continue
        inside = organs[box] == value
        for axis, score in enumerate(scores):
            count = inside.sum(axis=tuple({0, 1, 2} - {axis})).astype(float)
            score[box[axis]] += np.sqrt(count / count.max())
    i, j, k = (int(score.argmax()) if boxes else len(score) // 2 for score in scores)
    return i, j, k


def blend(hu: Array, organs: Array, labels: LabelTable, window_hu: tuple[float, float] = WINDOW_HU) -> Array:
    """Grey CT with coloured organs, float RGB 0 ... 1."""
    low, high = window_hu
    grey = np.clip((hu - low) / (high - low), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for label in labels:
        inside = organs == label.value
        colour = np.array(label.colour) / 255
        picture[inside] = (1 - OPACITY) * picture[inside] + OPACITY * colour
    return np.asarray(picture)


def _letters(axes: object, letters: tuple[str, str, str, str]) -> None:
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.97), (0.5, 0.03))
    for letter, (x, y) in zip(letters, places, strict=True):
        axes.text(  # type: ignore[attr-defined]
            x,
            y,
            letter,
            color="white",
            fontsize=12,
            ha="center",
            va="center",
            transform=axes.transAxes,  # type: ignore[attr-defined]
        )


def _legend(figure: Figure, labels: LabelTable, measurements: Sequence[Measurement]) -> None:
    volumes = {row.organ: row.volume_ml for row in measurements}
    handles = [
        Patch(color=np.array(label.colour) / 255, label=f"{label.title}  {volumes.get(label.name, 0):.1f} ml")
        for label in labels
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, labelcolor="white", fontsize=11)
