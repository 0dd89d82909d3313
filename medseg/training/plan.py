"""`medseg train plan`: a data set's fingerprint decides spacing, patch, network, batch and window, written as one YAML.

The rules are few and their reasons stand in the file; nothing is hidden in the program. Whatever is changed by hand
wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.ndimage import center_of_mass

from medseg.errors import ConfigError, DataError
from medseg.imaging.emit import emit_text
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.imaging.volume import Array, Geometry, reorient
from medseg.labels import LabelTable
from medseg.training.cases import CaseFiles, Dataset, check_left_out, read_index, require_one_grid
from medseg.training.config import checked
from medseg.training.fit import CPU_RUNGS, NETWORK, USABLE, Fit, Room, fit
from medseg.training.foreign import adopt, locate
from medseg.training.links import source_of
from medseg.training.lookalikes import Places, told, unnamed_sides

VOXELS = 2_500_000  # of the median scan on the training grid: what two cores pass over in seconds
MAX_SAMPLES = 2000
ANATOMY_CASES = 30  # fewer say too little of where organs may lie


@dataclass(frozen=True)
class Fingerprint:
    """What the plan is made from: medians over the training cases, RAS order.

    Attributes:
        spacing_mm, size_mm: of the scans.
        organ_hu: 0.5th and 99.5th percentile of HU within all organs.
        volumes_ml: median of each organ.
        cases: number of training cases.
        beside: pairs of organs that look like two sides of one, and are not named so.
    """

    spacing_mm: tuple[float, ...]
    size_mm: tuple[float, ...]
    organ_hu: tuple[float, float]
    volumes_ml: dict[str, float]
    cases: int
    beside: tuple[tuple[str, str], ...] = ()


def fingerprint(dataset: Dataset) -> Fingerprint:
    """Look at every training case once.

    Raises:
        DataError: there is none, or scan and labels of one lie on different grids.
    """
    labels = LabelTable.from_names(dataset.labels)
    if not dataset.of("train"):
        raise DataError("There are no training cases.", advice="Give cases of the index the split `train`.")
    rows = [_look(case, labels) for case in dataset.of("train")]
    spacings, sizes, samples, places = zip(*rows, strict=True)
    by_organ = {label.name: [row[label.name][1] for row in places if label.name in row] for label in labels}
    hu = np.concatenate(samples)
    low, high = np.percentile(hu, (0.5, 99.5)) if len(hu) else (-1000.0, 1000.0)
    return Fingerprint(
        tuple(float(mm) for mm in np.median(spacings, axis=0)),
        tuple(float(mm) for mm in np.median(sizes, axis=0)),
        (float(low), float(high)),
        {name: float(np.median(each)) for name, each in by_organ.items() if each},
        len(rows),
        tuple(unnamed_sides(places, labels)),
    )


def _look(case: CaseFiles, labels: LabelTable) -> tuple[Array, Array, Array, Places]:
    volume = read_nifti(case.ct)
    mask, geometry = read_label_map(case.label)
    require_one_grid(case, volume.geometry, geometry)
    grid = volume.geometry.canonical()
    organs, hu = reorient(mask, volume.geometry.to_canonical), reorient(volume.hu, volume.geometry.to_canonical)
    inside = hu[organs > 0]
    sample = inside[:: max(1, len(inside) // MAX_SAMPLES)]
    return np.array(grid.spacing_mm), np.array(grid.spacing_mm) * grid.shape, sample, _places(organs, grid, labels)


def _places(organs: Array, grid: Geometry, labels: LabelTable) -> Places:
    """Of the organs that are there; `organs` in RAS order."""
    counts = np.bincount(organs.ravel(), minlength=256)
    there = [label for label in labels if counts[label.value]]
    centres = center_of_mass(organs > 0, organs, [label.value for label in there]) if there else []
    to_mm, origin = grid.affine[:3, :3], grid.affine[:3, 3]
    return {
        label.name: (to_mm @ np.array(centre) + origin, float(counts[label.value] * grid.voxel_ml))
        for label, centre in zip(there, centres, strict=True)
    }


def plan(name: str, index: Path, seen: Fingerprint, labels: LabelTable, room: Room) -> tuple[dict[str, Any], Fit]:
    """Settings as the YAML holds them, and what of the memory they take.

    Args:
        name: of the model.
        index: of the data.
        seen: their fingerprint.
        labels: their organs.
        room: where it will train.

    Raises:
        ConfigError: too little memory even for the smallest training.
    """
    spacing = _spacing(seen)
    fitted = fit([size / mm for size, mm in zip(seen.size_mm, spacing, strict=True)], 1 + len(labels), room)
    low, high = seen.organ_hu
    settings = {
        "name": name,
        "index": str(index),
        "spacing_mm": [round(mm, 3) for mm in spacing],
        "window_hu": [max(-1000, 50 * math.floor(low / 50) - 100), min(3000, 50 * math.ceil(high / 50) + 100)],
        "patch_size": list(fitted.patch),
        "network": {"name": NETWORK, "options": fitted.options},
        "augment": {"mirror_left_right": 0.0 if labels.unpaired() or seen.beside else 0.5},
        "anatomy_check": seen.cases >= ANATOMY_CASES,
        "organ_weights": _weights(seen.volumes_ml),
        "batch_size": fitted.batch,
        "loop": _loop(fitted, room),
        "card": {
            "title": name,
            "limits": [f"Trained on {seen.cases} cases."],
            "sources": ["Say where the data are from."],
        },
    }
    return settings, fitted


def _loop(fitted: Fit, room: Room) -> dict[str, Any]:
    settings = {"max_steps": 6000, "learning_rate": 2.0e-3, "precision": room.precision}
    return settings | ({"gradient_aggregation_interval": fitted.aggregated} if fitted.aggregated > 1 else {})


def _spacing(seen: Fingerprint) -> list[float]:
    """The median, with the finest axes made coarser until the median scan has few enough voxels."""
    spacing = list(seen.spacing_mm)
    while math.prod(size / mm for size, mm in zip(seen.size_mm, spacing, strict=True)) > VOXELS:
        finest = min(range(3), key=lambda axis: spacing[axis])
        spacing[finest] *= 1.05
    return spacing


def _weights(volumes_ml: dict[str, float]) -> dict[str, float]:
    """Small organs are drawn more often: patches around others seldom show them."""
    middle = float(np.median(list(volumes_ml.values()))) if volumes_ml else 1.0
    return {name: round(min(3.0, max(0.5, (middle / ml) ** (1 / 3))), 2) for name, ml in volumes_ml.items()}


def plan_and_write(
    path: Path,
    out: Path,
    name: str | None,
    room: Room,
    *,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write a config for the data set at `path`; another tool's becomes an index of ours beside the config.

    Args:
        path: of the data set.
        out: the config.
        name: of the model; the file's name where None.
        room: where it will train.
        force: overwrite a config that holds something else, and data of another set beside it.
        say: told of studies as they are read, and of those that are left out.

    Raises:
        DataError: the data set cannot be read, or a study of it cannot be used.
        ConfigError: too little memory even for the smallest training, an `out` that would hit the data set, or,
            without `force`, one that holds something else already.
    """
    description, ours = locate(path)
    index = description.resolve() if ours else adopt(description, _beside(out, description, force=force), say)
    dataset = read_index(index)
    check_left_out(dataset, say)
    seen = fingerprint(dataset)
    settings, fitted = plan(name or out.stem, index, seen, LabelTable.from_names(dataset.labels), room)
    checked(settings, out.name)
    text = _comment(seen, fitted, room) + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    if not force and out.is_file() and out.read_bytes() != text.encode("utf-8"):
        raise ConfigError(
            f"{out} is there already, and is not what would be planned now.",
            advice="Give another name, or overwrite it with --force.",
        )
    return emit_text(out, text)


def _beside(out: Path, description: Path, *, force: bool) -> Path:
    """Where the index of another tool's data set goes: never into that data set, nor over another's unasked."""
    if out.is_dir():
        raise ConfigError(f"{out} is a folder.", advice="Give the YAML file, for example mine.yaml.")
    folder = out.resolve().with_name(f"{out.stem}-data")
    source = description.resolve() if description.is_dir() else description.resolve().parent
    if folder == source:
        raise ConfigError(f"{folder} is the data set itself.", advice="Give the config another name.")
    before = source_of(folder)
    if before and before != str(description.resolve()) and not force:
        raise ConfigError(
            f"{folder} was made from another data set, {before}.",
            advice="Give the config another name, or overwrite both with --force.",
        )
    return folder


def _comment(seen: Fingerprint, fitted: Fit, room: Room) -> str:
    def mm(values: Sequence[float]) -> str:
        return " x ".join(f"{value:.4g}" for value in values)

    volumes = ", ".join(f"{name} {ml:.1f}" for name, ml in seen.volumes_ml.items())
    return (
        f"# Planned from {seen.cases} training cases. Change what you know better; unknown keys are errors.\n"
        f"# Median spacing {mm(seen.spacing_mm)} mm, median size {mm(seen.size_mm)} mm; HU in organs "
        f"{seen.organ_hu[0]:.0f} to {seen.organ_hu[1]:.0f} (0.5 and 99.5 %).\n"
        f"# spacing_mm: that median, coarser where a median scan had more than {VOXELS:,} voxels.\n"
        f"# window_hu: those HU and 100 more at both ends. patch_size: the scan's proportions.\n"
        f"# patch_size, channels, batch_size: for {room.memory_mb / 1024:.1f} GB of {room.where}, "
        f"of which {USABLE:.0%} may be used; about {fitted.memory_mb / 1024:.1f} GB are expected.\n"
        f"{_beside_each_other(seen)}{_slow(fitted)}# anatomy_check: from {ANATOMY_CASES} cases on. "
        f"organ_weights: cube root of (median volume / volume). Volumes, ml: {volumes}.\n"
    )


def _beside_each_other(seen: Fingerprint) -> str:
    return f"# mirror_left_right: {told(seen.beside)}\n" if seen.beside else ""


def _slow(fitted: Fit) -> str:
    """A warning where the model would keep those waiting who have no GPU."""
    usual = CPU_RUNGS[0].channels[0]
    times = (fitted.channels[0] / usual) ** 2
    said = f"# Segmenting takes this network about {times:.0f} times as long on a CPU as one of {usual} channels.\n"
    return said if times > 1 else ""
