"""A small picture of a study: axial, coronal and sagittal plane with its organs in colour, as PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from medseg.imaging.volume import Array
from medseg.labels import LabelTable
from medseg.results.preview import blend, busiest_slices, plane
from vlretrieval.view import StudyView

HEIGHT = 128


def draw_thumbnail(view: StudyView, labels: LabelTable) -> bytes:
    """PNG of three planes side by side, 128 pixels high."""
    centre = busiest_slices(view.organs) if view.organs.any() else _middle(view)
    planes = [_plane(view, labels, axis, centre[axis]) for axis in (2, 1, 0)]
    picture = Image.fromarray(np.concatenate(planes, axis=1))
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _middle(view: StudyView) -> tuple[int, int, int]:
    i, j, k = (size // 2 for size in view.hu.shape)
    return i, j, k


def _plane(view: StudyView, labels: LabelTable, axis: int, index: int) -> Array:
    colours = blend(plane(view.hu.astype(np.float32), axis, index), plane(view.organs, axis, index), labels)
    image = Image.fromarray((colours * 255).astype(np.uint8))
    width = max(1, round(image.width * HEIGHT / image.height))
    return np.asarray(image.resize((min(width, 2 * HEIGHT), HEIGHT), Image.Resampling.BILINEAR))
