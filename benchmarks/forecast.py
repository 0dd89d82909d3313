"""Forecast against measured: peak memory of ten computed scans, each in a fresh process.

`python benchmarks/forecast.py -o benchmarks/results/forecast.json` writes body-like ellipsoids with noise as NIfTI
files, segments and saves each with the shipped model, and compares what was said before with the process's peak.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import nibabel as nib
import numpy as np
import tyro

from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import machine, versions

SCANS = [
    ((128, 128, 60), (3.9, 3.9, 2.5)),
    ((128, 128, 128), (3.9, 3.9, 2.5)),
    ((256, 256, 90), (1.9, 1.9, 3.0)),
    ((330, 200, 126), (1.5, 1.5, 2.5)),
    ((512, 512, 41), (0.9, 0.9, 5.0)),
    ((512, 512, 134), (0.98, 0.98, 2.5)),
    ((512, 512, 200), (0.7, 0.7, 1.5)),
    ((512, 512, 330), (0.98, 0.98, 1.0)),
    ((512, 400, 500), (0.8, 0.8, 1.0)),
    ((600, 600, 300), (0.6, 0.6, 0.8)),
]
RUN = """
import json, sys, medseg
from medseg.runtime.options import Options
from medseg.runtime.provenance import peak_memory_mb
result = medseg.segment(sys.argv[1], model=sys.argv[3], options=Options(backend=sys.argv[4]))
result.save(sys.argv[2])
seconds = result.run["seconds"]["segment"]
print(json.dumps({**result.run["forecast"], "peak_mb": peak_memory_mb(), "segment_s": seconds}))
"""


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """JSON file of the result."""
    model: str = "head-neck-oar"
    """Name of the model."""
    backend: str = "torch"
    """What runs it."""


def write_scan(path: Path, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
    """An ellipsoid of noisy water in air, int16 HU."""
    rng = np.random.default_rng(0)
    i, j, k = np.ogrid[tuple(slice(-1, 1, complex(0, size)) for size in shape)]
    body = (i / 0.8) ** 2 + (j / 0.6) ** 2 + 0 * k < 1
    hu = np.where(body, rng.normal(40, 60, shape), -1000).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([*spacing_mm, 1.0])), path)


def measure(
    folder: Path, asked: Arguments, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> dict:
    """One scan in a fresh process."""
    scan = folder / "scan.nii.gz"
    write_scan(scan, shape, spacing_mm)
    command = [sys.executable, "-c", RUN, str(scan), str(folder / "out"), asked.model, asked.backend]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    return {"shape": shape, "spacing_mm": spacing_mm, **row, "ratio": round(row["memory_mb"] / row["peak_mb"], 3)}


def main() -> None:
    """Measure and write."""
    asked = tyro.cli(Arguments, description=__doc__)
    rows = []
    for shape, spacing_mm in SCANS:
        with TemporaryDirectory() as folder:
            rows.append(measure(Path(folder), asked, shape, spacing_mm))
        print(rows[-1], flush=True)
    emit_json(asked.out, {"scans": rows, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
