"""A data set of computed bodies, so that anyone can train without data: every patient another size, one seed, one body.

A body of soft tissue in air holds a ball on its left, a denser box on its right and a rod of bone at its back. It
teaches nothing about people.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medseg.imaging.emit import emit_bytes, emit_json
from medseg.imaging.nifti import write_label_map
from medseg.imaging.volume import Array, Geometry
from medseg.training.config import PhantomConfig
from medseg.training.links import INDEX, require_ours, sweep

LABELS = {"ball_left": 1, "box_right": 2, "rod": 3}
SHAPE, SPACING_MM = (48, 40, 40), (4.0, 4.0, 4.0)
_AIR_HU, _BODY_HU, _BALL_HU, _BOX_HU, _ROD_HU = -1000, 40, 300, -150, 700


def write_phantoms(folder: Path, config: PhantomConfig) -> Path:
    """Write scans, labels and `index.json`, unless those of the same config are there; returns the index.

    Raises:
        ConfigError: the folder holds a data set of its own.
        OutputError: they could not be written.
    """
    require_ours(folder)
    index, made_from = folder / INDEX, config.model_dump(mode="json")
    # Written last: the others are complete.
    if index.is_file() and json.loads(index.read_bytes()).get("made_from") == made_from:
        return index
    index.unlink(missing_ok=True)
    entries: list[dict[str, Any]] = []
    for split, count in (("train", config.train), ("validation", config.validation)):
        for number in range(count):
            name = f"{split[0]}{number:02d}"
            _write_case(folder / split, name, np.random.default_rng([config.seed, len(entries)]))
            entries.append({"id": name, "split": split, "contoured": list(LABELS)})
    sweep(folder, [(entry["split"], entry["id"]) for entry in entries])
    return emit_json(index, {"labels": LABELS, "cases": entries, "made_from": made_from})


def _write_case(folder: Path, name: str, rng: np.random.Generator) -> None:
    hu, labels = draw_phantom(rng)
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    emit_bytes(folder / f"{name}_ct.nii.gz", _nifti(hu, affine))
    write_label_map(folder / f"{name}_label.nii.gz", labels, Geometry(SHAPE, affine))


def draw_phantom(rng: np.random.Generator) -> tuple[Array, Array]:
    """One body on the RAS grid of `SHAPE`: int16 HU and uint8 labels."""
    size = rng.uniform(0.9, 1.15)
    centred = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    mm = centred * np.array(SPACING_MM).reshape(3, 1, 1, 1)
    mm = (mm - rng.uniform(-8, 8, 3).reshape(3, 1, 1, 1)) / size
    body = _ellipsoid(mm, (0, 0, 0), (72, 52, 64))
    labels = np.zeros(SHAPE, np.uint8)
    labels[_ellipsoid(mm, rng.normal((-34, 6, 12), 3), (20, 20, 20))] = 1
    labels[_box(mm, rng.normal((32, -4, -10), 3), (14, 17, 20))] = 2
    labels[body & (np.hypot(mm[0], mm[1] + 36) <= 8)] = 3
    hu = np.where(body, _BODY_HU, _AIR_HU)
    for value, organ_hu in enumerate((_BALL_HU, _BOX_HU, _ROD_HU), 1):
        hu[labels == value] = organ_hu
    noisy = hu + rng.normal(0, 12, SHAPE)
    return np.clip(np.round(noisy), -1024, 3071).astype(np.int16), labels


def _ellipsoid(mm: Array, centre: Array | tuple[float, ...], radii: tuple[float, ...]) -> Array:
    away = (mm - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(radii, (3, 1, 1, 1))
    return np.asarray((away**2).sum(axis=0) <= 1)


def _box(mm: Array, centre: Array | tuple[float, ...], half: tuple[float, ...]) -> Array:
    away = np.abs(mm - np.reshape(centre, (3, 1, 1, 1)))
    return np.asarray((away <= np.reshape(half, (3, 1, 1, 1))).all(axis=0))


def _nifti(hu: Array, affine: Array) -> bytes:
    image = nib.Nifti1Image(hu, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_slope_inter(1.0, 0.0)
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
