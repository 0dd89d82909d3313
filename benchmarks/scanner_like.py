"""Validation scans made to look as scanners send them: 512 x 512, couch, noise, padding.

The archive's scans are 128 x 128, air is clean and no couch is visible. This makes a 512 x 512
version of each (linear interpolation, correlated noise, a curved couch with foam, a padded circle
of -3024 HU), segments both, and compares Dice. `python benchmarks/scanner_like.py INDEX -o OUT`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from scipy import ndimage

import medseg
from medseg.evaluation import Settings, evaluate_arrays
from medseg.imaging.emit import emit_json
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.imaging.volume import Array, Geometry, Volume, reorient
from medseg.preprocess.restore import restore
from medseg.runtime.provenance import machine, versions

FACTOR = 4
OPEN_ENDED = ("spinal_cord", "esophagus")


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    index: Annotated[Path, tyro.conf.Positional]
    """index.json of the dataset."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """JSON file of the result."""
    cases: int = 8
    """Validation cases, spread evenly over the split."""
    model: str = "head-neck-oar"
    """Name of the model."""


def fine_grid(geometry: Geometry) -> Geometry:
    """Four times as many voxels along i and j, the same extent."""
    affine = geometry.affine.copy()
    affine[:3, :2] /= FACTOR
    affine[:3, 3] -= (geometry.affine[:3, :2] - affine[:3, :2]).sum(axis=1) / 2
    i, j, k = geometry.shape
    return Geometry((i * FACTOR, j * FACTOR, k), affine)


def as_scanned(volume: Volume, seed: int) -> Volume:
    """The scan at 512 x 512 with couch, noise and padding; the archive stores LPS, j runs to posterior."""
    rng = np.random.default_rng(seed)
    grid = fine_grid(volume.geometry)
    hu = ndimage.zoom(volume.hu, (FACTOR, FACTOR, 1), order=1, grid_mode=True, mode="nearest")
    hu += ndimage.gaussian_filter(rng.normal(0, 1, hu.shape), (0.7, 0.7, 0)).astype(np.float32) * 40
    hu = np.where(couch(hu, rng), np.maximum(hu, rng.uniform(-500, 200)), hu)
    i, j = np.ogrid[: grid.shape[0], : grid.shape[1]]
    outside = (i - grid.shape[0] / 2) ** 2 + (j - grid.shape[1] / 2) ** 2 > (grid.shape[0] / 2) ** 2
    hu[outside] = -1024  # the reader turns -3024 into this
    return Volume(hu.astype(np.float32), grid, volume.name)


def couch(hu: Array, rng: np.random.Generator) -> Array:
    """Two curved shells right below the patient; bool."""
    rows = np.flatnonzero((hu > -300).any(axis=(0, 2)))
    bottom = rows[-1] - rng.integers(0, 8)
    i, j, _ = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    depth = j - bottom + 0.0006 * (i - hu.shape[0] / 2) ** 2
    shell = ((depth > 0) & (depth < 4)) | ((depth > 30) & (depth < 34))
    return np.asarray(shell & (hu < -400) & (np.abs(i - hu.shape[0] / 2) < 200))


def reference_on(grid: Geometry, labels: Array, source: Geometry, num: int) -> Array:
    """The contour on the fine grid, smooth: one-hot labels restored as if they were logits."""
    onehot = np.stack([(labels == value) for value in range(num)]).astype(np.float32) * 8
    turned = np.stack([reorient(channel, source.to_canonical) for channel in onehot])
    return restore(turned, source.canonical(), grid).labels


def main() -> None:
    """Measure and write."""
    asked = tyro.cli(Arguments, description=__doc__)
    index = json.loads(asked.index.read_text())
    cases = [case for case in index["cases"] if case["split"] == "validation"]
    cases = cases[:: max(1, len(cases) // asked.cases)][: asked.cases]
    rows = [_case(asked, index["labels"], case, number) for number, case in enumerate(cases)]
    organs = {organ: _means(rows, organ) for organ in index["labels"]}
    emit_json(asked.out, {"organs": organs, "cases": rows, "versions": versions(), "machine": machine()})
    print(json.dumps(organs, indent=1))


def _case(asked: Arguments, table: dict[str, int], case: dict, number: int) -> dict:
    stem = asked.index.parent / "validation" / case["id"]
    volume = read_nifti(Path(f"{stem}_ct.nii.gz"))
    labels, geometry = read_label_map(Path(f"{stem}_label.nii.gz"))
    scanned = as_scanned(volume, number)
    plain, fine = medseg.segment(volume, model=asked.model), medseg.segment(scanned, model=asked.model)
    fine_labels = reference_on(scanned.geometry, labels, geometry, max(table.values()) + 1)
    row = {"id": case["id"], "seconds": fine.run["seconds"], "shape": list(fine.mask.shape)}
    row["plain"] = _dice(plain.mask, labels, geometry, table, case)
    row["scanned"] = _dice(fine.mask, fine_labels, scanned.geometry, table, case)
    print(row["id"], row["plain"], row["scanned"], flush=True)
    return row


def _dice(mask: Array, reference: Array, geometry: Geometry, table: dict[str, int], case: dict) -> dict[str, float]:
    settings = Settings(within_contoured=OPEN_ENDED)
    scores = evaluate_arrays(mask, reference, geometry, labels=table, known=case["contoured"], settings=settings)
    return {score.organ: round(float(score.figures.dice), 3) for score in scores}


def _means(rows: list[dict], organ: str) -> dict[str, float]:
    found = [(row["plain"][organ], row["scanned"][organ]) for row in rows if organ in row["plain"]]
    plain, scanned = np.mean(found, axis=0) if found else (np.nan, np.nan)
    return {"n": len(found), "plain": round(float(plain), 3), "scanned": round(float(scanned), 3)}


if __name__ == "__main__":
    main()
