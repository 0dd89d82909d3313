"""What is a Dice worth here? That of contours which lie some millimetres beside themselves, organ by organ.

`PYTHONPATH=. python benchmarks/contour_tolerance.py INDEX -o OUT.json`

Two observers, or a clinic and a model, draw one organ a little apart. Every validation reference is laid on the voxels
twice, the second time a few millimetres further on in one of six directions, and both are compared. Where between the
voxels the first one lies is random, as it is for a patient on the table (its signed distance is moved, linearly
interpolated). That alone changes the volume: a mask that is moved by less than a voxel keeps 0.95 to 0.97 of it where
the organ is bulky or the mandible, about 0.9 where it is thin (cord, esophagus), so that shifts of thin organs cost
somewhat more Dice here than they should. On coarse voxels and thin organs little is much: from these figures one reads
how near a mean Dice asks contours to lie, and how far off those of a model seem (`--scores`: scores.json of `medseg
evaluate`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import tyro
from scipy import ndimage

from medseg.deploy.parity import dice
from medseg.imaging.emit import emit_json
from medseg.imaging.nifti import read_label_map
from medseg.imaging.volume import Array
from medseg.training.cases import read_index

DIRECTIONS = [sign * row for sign, row in product((1, -1), np.eye(3))]


@dataclass(frozen=True)
class Arguments:
    """What to move."""

    index: Annotated[Path, tyro.conf.Positional]
    """index.json of the dataset; its validation split is taken."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """JSON file of the result."""
    shifts_mm: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    """How far, rising; 0 is the first mask against itself."""
    seed: int = 0
    """Of the places between the voxels."""
    scores: Path | None = None
    """scores.json of a model on the same cases."""


def signed_distance(mask: Array, spacing_mm: Array) -> Array:
    """To the surface, mm, positive inside."""
    inside, outside = (ndimage.distance_transform_edt(part, spacing_mm) for part in (mask, ~mask))
    return np.asarray(inside - outside)


def moved(signed: Array, voxels: Array) -> Array:
    """The mask of a signed distance that is moved by so many voxels along i, j, k."""
    return np.asarray(ndimage.shift(signed, voxels, order=1, mode="nearest") > 0)


def organs_of(index: Path, margin_mm: float) -> Iterator[tuple[str, Array, Array]]:
    """Name, mask (cut out, with a margin) and spacing of every contour of the validation split."""
    dataset = read_index(index)
    for case in dataset.of("validation"):
        labels, grid = read_label_map(case.label)
        for name in case.contoured:
            mask = labels == dataset.labels[name]
            if mask.any():
                box = ndimage.find_objects(mask.astype(np.uint8))[0]
                yield name, np.pad(mask[box], 1 + ceil(margin_mm / min(grid.spacing_mm))), np.asarray(grid.spacing_mm)


def measured(given: Arguments) -> dict[str, dict[float, float]]:
    """Organ -> shift -> mean Dice over cases and directions."""
    rng = np.random.default_rng(given.seed)
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, mask, spacing in organs_of(given.index, max(given.shifts_mm)):
        signed = signed_distance(mask, spacing)
        for direction in DIRECTIONS:
            place = rng.uniform(-0.5, 0.5, 3)
            first = moved(signed, place)
            for shift in given.shifts_mm:
                again = moved(signed, place + shift * direction / spacing)
                if (value := dice(first, again)) is not None:  # a contour of one voxel may fall between all of them
                    found[name][shift].append(value)
    return {name: {shift: round(mean(rows), 4) for shift, rows in row.items()} for name, row in found.items()}


def main(given: Arguments) -> dict[str, Any]:
    """Move, score, write."""
    table = measured(given)
    table["mean of organs"] = {s: round(mean(row[s] for row in table.values()), 4) for s in given.shifts_mm}
    result: dict[str, Any] = {"dice_by_shift_mm": table}
    if given.scores is not None:
        result["as_if_moved_mm"] = _as_if_moved(given.scores, table)
    emit_json(given.out, result)
    return result


def _as_if_moved(scores: Path, table: dict[str, dict[float, float]]) -> dict[str, float]:
    """The shift that costs as much Dice as the model's contours lack; the longest one where it costs less."""
    organs = json.loads(scores.read_text())["organs"]
    own = {name: float(organs[name]["dice"]["mean"]) for name in table if name in organs}
    own["mean of organs"] = mean(own.values())
    rising = {name: np.array(sorted((value, shift) for shift, value in table[name].items())).T for name in own}
    return {name: round(float(np.interp(own[name], *row)), 2) for name, row in rising.items()}


if __name__ == "__main__":
    main(tyro.cli(Arguments))
