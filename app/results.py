"""A result folder as the page reads it."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.scans import MASK, PAGE, Array, Note

RUN = "run.json"
FILES = ("mask.nii.gz", "labels.json", "measurements.csv", "measurements.json", "preview.png", RUN)
SHOWN = "page"
Colour = tuple[int, int, int]


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
class Histogram:
    """Voxels of an organ per class of HU."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """A finished study; `folder` holds its files.

    Attributes:
        corrected: facts of the correction by hand, empty where there was none.
        middles: value in the mask -> a voxel (canonical order) in the middle of the organ.
    """

    folder: Path
    model: str
    version: str
    organs: tuple[OrganRow, ...]
    notes: tuple[Note, ...]
    seconds: float
    corrected: dict[str, Any]
    middles: dict[int, tuple[int, int, int]]
    histograms: dict[int, Histogram]

    def mask(self) -> Array:
        """uint8 [x, y, z] in canonical order, mapped from the disk."""
        mask: Array = np.load(self.folder / SHOWN / MASK, mmap_mode="r")
        return mask

    def archive(self) -> bytes:
        """The result's files as one zip."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in (self.folder / name for name in FILES):
                if path.exists():
                    archive.write(path, path.name)
        return packed.getvalue()


def read_result(folder: Path) -> Result:
    """A result folder as the page shows it."""
    facts, run, shown = (_json(folder / name) for name in ("labels.json", RUN, f"{SHOWN}/{PAGE}"))
    colours = {label["name"]: label["color"] for label in facts["labels"]}
    rows = tuple(_organ(row, colours) for row in _json(folder / "measurements.json"))
    return Result(
        folder=folder,
        model=facts["model"].get("name", "?"),
        version=facts["model"].get("version", ""),
        organs=rows,
        notes=tuple(Note(n["code"], n["message"], n["severity"]) for n in run["findings"]),
        seconds=float(run.get("seconds", {}).get("total", 0.0)),
        corrected=run.get("corrected", {}),
        middles={int(value): (at[0], at[1], at[2]) for value, at in shown["middles"].items()},
        histograms={
            int(value): Histogram(h["low"], h["high"], tuple(h["counts"])) for value, h in shown["histograms"].items()
        },
    )


def accepted_in(folder: Path) -> str:
    """The reason with which the scan of a result folder was accepted in spite of a refusal; '' for most."""
    return str(_json(folder / RUN).get("accepted", "")) if (folder / RUN).is_file() else ""


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


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
