"""A result folder as the page reads it."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.results.pictures import Colour, Scene

FILES = ("mask.nii.gz", "labels.json", "measurements.csv", "measurements.json", "preview.png", "run.json")
# What the viewer draws lies beside the result's files and is no part of them.
PICTURES = "pictures"


@dataclass(frozen=True)
class Note:
    """A remark that a reader of the result should see."""

    message: str
    severity: str


@dataclass(frozen=True)
class OrganRow:
    """One organ in numbers, and its colour."""

    name: str
    value: int
    colour: Colour
    volume_ml: float
    mean_hu: float | None
    sd_hu: float | None
    extent_mm: tuple[float, ...]
    slices: int
    touches_edge: bool
    mean_probability: float | None


@dataclass(frozen=True)
class Result:
    """A finished study; `folder` holds its files."""

    study: str
    folder: Path
    model: str
    version: str
    organs: tuple[OrganRow, ...]
    notes: tuple[Note, ...]

    def archive(self) -> bytes:
        """The result's files as one zip."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in (self.folder / name for name in FILES):
                if path.exists():
                    archive.write(path, path.name)
        return packed.getvalue()


def read_result(study: str, folder: Path) -> Result:
    """A result folder as the page shows it."""
    facts = _json(folder / "labels.json")
    colours = {label["name"]: label["color"] for label in facts["labels"]}
    rows = tuple(_organ(row, colours) for row in _json(folder / "measurements.json"))
    notes = tuple(Note(n["message"], n["severity"]) for n in _json(folder / "run.json")["findings"])
    return Result(study, folder, facts["model"]["name"], facts["model"]["version"], rows, notes)


def _organ(row: dict[str, Any], colours: dict[str, list[int]]) -> OrganRow:
    red, green, blue = colours[row["organ"]]
    return OrganRow(
        name=row["organ"],
        value=row["label"],
        colour=(red, green, blue),
        volume_ml=row["volume_ml"],
        mean_hu=row["mean_hu"],
        sd_hu=row["sd_hu"],
        extent_mm=tuple(row["extent_mm"]),
        slices=row["slices"],
        touches_edge=row["touches_edge"],
        mean_probability=row["mean_probability"],
    )


def read_scene(folder: Path) -> Scene:
    """The pictures of a result, mapped from the disk: nothing of the volume stays in memory."""
    facts = _json(folder / PICTURES / "scene.json")
    hu, mask = (np.load(folder / PICTURES / f"{name}.npy", mmap_mode="r") for name in ("hu", "mask"))
    x, y, z = facts["spacing_mm"]
    middles = {int(value): (at[0], at[1], at[2]) for value, at in facts["middles"].items()}
    return Scene(hu, mask, (x, y, z), middles)


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
