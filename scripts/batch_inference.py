"""Segment every study under the given files and folders; a rerun goes on where it stopped.

A study is a NIfTI, NRRD, MHA or zip file, or a folder with DICOM images. OUT gets a folder for each (mask, labels,
measurements, preview, run report) and manifest.csv / manifest.json with what became of each. A bad study is named
and does not stop the others. A rerun skips what is finished and unchanged, and computes what failed, changed or was
damaged.

Exit code: 0 all fine, 3 some studies failed, 1 all failed or nothing could be started, 130 interrupted.

Example: python scripts/batch_inference.py tonight/ results/ --workers 2
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medseg.errors import MedsegError
from medseg.jobs.console import run_and_report
from medseg.runtime.options import Options


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT... OUT")]
    """Files and folders to look through, and at last the folder of the results, which is made."""
    model: str = "head-neck-oar"
    """Name of the model; `medseg models` lists them."""
    series: str | None = None
    """Number or UID of the series, where studies hold several."""
    force: bool = False
    """Compute again what is finished and unchanged."""
    workers: int = 1
    """Studies at the same time; each wants the memory of a whole job."""
    backend: str | None = None
    """What runs the network: auto, torch, onnxruntime, openvino or tensorrt; auto measures once."""
    precision: str = "auto"
    """Of the network's arithmetic: auto, fp32, bf16, fp16 or int8."""
    max_memory: str | None = None
    """What a process may take, e.g. 4GB."""
    localiser: str | None = None
    """A quick model that finds where the organs are, so that MODEL works only there."""
    accept: str | None = None
    """A reason to go on with scans that are no CT or hold no Hounsfield units; it is put on record."""
    probabilities: str = ""
    """Organs whose probability is written as well, e.g. brainstem,mandible or all."""


def main() -> int:
    """Parse, call, exit code."""
    try:
        asked = tyro.cli(Settings, description=__doc__)
    except SystemExit as end:  # tyro's 2 for a wrong command line is no code of this script
        return 1 if end.code else 0
    if len(asked.paths) < 2:
        print("Error: two paths at least are needed: INPUT... OUT. --help tells more.", file=sys.stderr)
        return 1
    try:
        return run_and_report(
            asked.paths[:-1],
            asked.paths[-1],
            model=asked.model,
            series=asked.series,
            force=asked.force,
            workers=asked.workers,
            options=Options.asked(
                asked.backend, asked.precision, asked.max_memory, asked.localiser, asked.accept, asked.probabilities
            ),
        )
    except MedsegError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
