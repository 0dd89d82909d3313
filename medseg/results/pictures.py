"""Slices as pictures: grey CT, coloured organs, letters for the patient's sides.

Works on arrays in canonical order (x to the patient's right, y to the front, z to the head), drawn the
radiological way: the patient's right is on the left of the picture.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Plane = Literal["axial", "coronal", "sagittal"]
Colour = tuple[int, int, int]
Position = tuple[int, int, int]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
# Across which array axis a plane cuts, and which axes run along its width and height.
AXIS: dict[Plane, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
ACROSS: dict[Plane, tuple[int, int]] = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
# Left, right, top and bottom of the picture.
LETTERS: dict[Plane, str] = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
# Centre and width in HU, as reading rooms set them.
WINDOWS: dict[str, tuple[float, float]] = {
    "head_neck": (60.0, 400.0),
    "brain": (40.0, 80.0),
    "soft_tissue": (40.0, 350.0),
    "bone": (500.0, 2000.0),
    "lung": (-600.0, 1500.0),
}
_LINE: Colour = (255, 255, 255)


@dataclass(frozen=True)
class Scene:
    """What the viewer draws.

    Attributes:
        hu: int16 [x, y, z] in canonical order.
        mask: uint8 [x, y, z] on the same grid, at full resolution.
        spacing_mm: along x, y, z.
        middles: label value -> a voxel in the middle of it.
        corner: voxel of the whole scan at which this part begins.
    """

    hu: NDArray[Any]
    mask: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    middles: Mapping[int, Position]
    corner: Position = (0, 0, 0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y, z."""
        x, y, z = self.hu.shape
        return x, y, z

    @property
    def start(self) -> Position:
        """Where to open: the middle of the organ that lies most central, or of the scan where there is none."""
        x, y, z = self.shape
        points = np.array(list(self.middles.values()) or [(x // 2, y // 2, z // 2)])
        distance = np.abs((points - points.mean(axis=0)) * self.spacing_mm).sum(axis=1)
        x, y, z = points[distance.argmin()].tolist()
        return x, y, z


@dataclass(frozen=True)
class Look:
    """How to draw: window in HU, organs to show with their colours, opacity 0 ... 1, side of the square in pixels."""

    window: tuple[float, float]
    colours: Mapping[int, Colour]
    opacity: float = 0.45
    size: int = 560
    lines: bool = True


def draw(scene: Scene, plane: Plane, position: Position, look: Look) -> Image.Image:
    """One slice through `position` (x, y, z), centred on a black square, true to the millimetres."""
    grey = _to_picture(_cut(scene.hu, plane, position))
    labels = _to_picture(_cut(scene.mask, plane, position))
    width, height = picture_size(scene, plane, look.size)
    base = Image.fromarray(apply_window(grey, look.window)).resize((width, height), Image.Resampling.BILINEAR)
    # Labels are never interpolated: what is shown is what the mask says.
    big = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    picture = Image.fromarray(paint(np.asarray(base), big, look))
    if look.lines:
        _draw_lines(picture, scene, plane, position)
    return _frame(picture, plane, look.size)


def to_png(picture: Image.Image) -> bytes:
    """Lossless, and packed for speed: a slider is waiting for it."""
    packed = io.BytesIO()
    picture.save(packed, "PNG", compress_level=1)
    return packed.getvalue()


def apply_window(hu: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """HU -> grey 0 ... 255 by (centre, width)."""
    centre, width = window
    grey = (hu.astype(np.float32) - (centre - width / 2)) * (255.0 / width)
    return np.asarray(np.clip(grey, 0, 255), np.uint8)


def picture_size(scene: Scene, plane: Plane, size: int) -> tuple[int, int]:
    """Width and height in pixels such that a millimetre is equally long both ways and the picture fits."""
    across, up = (scene.shape[axis] * scene.spacing_mm[axis] for axis in ACROSS[plane])
    scale = size / max(across, up)
    return max(1, round(across * scale)), max(1, round(up * scale))


def paint(grey: NDArray[Any], labels: NDArray[Any], look: Look) -> NDArray[np.uint8]:
    """Colours over grey: filled with the opacity, with a clear outline."""
    colour = _palette(look.colours)[labels]
    shown = np.isin(labels, list(look.colours))
    alpha = np.where(shown, look.opacity, 0.0)
    alpha[shown & _is_edge(labels)] = min(1.0, look.opacity * 2.0)
    mixed = grey[..., None] * (1.0 - alpha[..., None]) + colour * alpha[..., None]
    return np.asarray(mixed.round(), np.uint8)


def find_middles(mask: NDArray[Any]) -> dict[int, Position]:
    """For every label of the mask a voxel of its own in its middle: near the median along each axis."""
    boxes = ndimage.find_objects(mask)
    return {value: _middle(mask[box] == value, box) for value, box in enumerate(boxes, start=1) if box is not None}


def _middle(inside: NDArray[Any], box: tuple[slice, ...]) -> Position:
    counts = [inside.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    halves = [int(np.searchsorted(count.cumsum(), count.sum() / 2)) for count in counts]
    x, y, z = (side.start + half for side, half in zip(box, _nearest(inside, halves), strict=True))
    return x, y, z


def _nearest(inside: NDArray[Any], place: list[int]) -> list[int]:
    """The label's voxel that is nearest to a place, in the same axial slice where it has one: a jaw is hollow."""
    if inside[tuple(place)]:
        return place
    low, high = (place[2], place[2] + 1) if inside[:, :, place[2]].any() else (0, inside.shape[2])
    voxels = np.argwhere(inside[:, :, low:high]) + np.array([0, 0, low])
    found: list[int] = voxels[((voxels - place) ** 2).sum(axis=1).argmin()].tolist()
    return found


def _palette(colours: Mapping[int, Colour]) -> NDArray[np.float32]:
    table = np.zeros((256, 3), np.float32)
    for value, colour in colours.items():
        table[value] = colour
    return table


def _is_edge(labels: NDArray[Any]) -> NDArray[np.bool_]:
    padded = np.pad(labels, 1, mode="edge")
    inner = padded[1:-1, 1:-1]
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.any([inner != side for side in around], axis=0))


def _cut(array: NDArray[Any], plane: Plane, position: Position) -> NDArray[Any]:
    axis = AXIS[plane]
    return array[tuple(position[axis] if a == axis else slice(None) for a in range(3))]


def _to_picture(cut: NDArray[Any]) -> NDArray[Any]:
    # Rows run down from the front or the head, columns from the patient's right or front.
    return np.ascontiguousarray(cut[::-1, ::-1].T)


def _draw_lines(picture: Image.Image, scene: Scene, plane: Plane, position: Position) -> None:
    across, up = ACROSS[plane]
    x = picture.width * (1.0 - (position[across] + 0.5) / scene.shape[across])
    y = picture.height * (1.0 - (position[up] + 0.5) / scene.shape[up])
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    pen.line([(x, 0), (x, picture.height)], fill=(*_LINE, 70))
    pen.line([(0, y), (picture.width, y)], fill=(*_LINE, 70))
    picture.paste(layer, (0, 0), layer)


def _frame(picture: Image.Image, plane: Plane, size: int) -> Image.Image:
    square = Image.new("RGB", (size, size))
    square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    pen, font, middle, edge = ImageDraw.Draw(square), _font(size), size / 2, size * 0.03
    places = ((edge, middle), (size - edge, middle), (middle, edge), (middle, size - edge))
    for letter, place in zip(LETTERS[plane], places, strict=True):
        pen.text(place, letter, font=font, anchor="mm", fill=(235, 235, 235), stroke_width=2, stroke_fill=(0, 0, 0))
    return square


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(12, size // 28))
