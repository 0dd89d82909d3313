"""How long a compiled run takes to build its graph, the first time and the second.

`PYTHONPATH=. python benchmarks/compile_start.py -o benchmarks/results/compile_start.json`. Every start is a process of
its own, and the first one finds an empty cache. The graph's time is that of the first steps beyond an ordinary one, so
that reading the cache counts, too. Without a C++ compiler the program says so and ends.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from benchmarks.fixed_batches import SHIPPED, SMOKE, fixed_batches
from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import machine, versions
from medseg.training.compiled import CACHE_VARIABLE, first_steps, why_not
from medseg.training.journal import StepRecord
from medseg.training.loop import LoopConfig
from medseg.training.trainer import Trainer

STEPS = 10
_START = "from benchmarks.compile_start import start; import sys; start(*sys.argv[1:])"


def start(folder: str, name: str, patch: str, precision: str) -> None:
    """One start in this process; prints what its steps took."""
    task = fixed_batches({"smoke": SMOKE, "shipped": SHIPPED}[name], int(patch), 2)
    loop = LoopConfig.model_validate(
        {"max_steps": STEPS, "warmup_steps": 0, "precision": precision, "workers": 0, "compile": True}
    )
    records: list[StepRecord] = []
    Trainer(task, loop, Path(folder), watchers=[records.append]).run()
    building, usual = first_steps(records[1:])  # the first step runs as written
    print(json.dumps({"graph_s": round(building, 3), "step_s": round(usual, 4), "loss": records[-1].loss}))


def measure(name: str, patch: int, precision: str, again: int) -> dict[str, Any]:
    """One start with an empty cache, and `again` more."""
    with tempfile.TemporaryDirectory() as place:
        starts = [_process(Path(place), n, name, str(patch), precision) for n in range(1 + again)]
    first, second = starts[0]["graph_s"], statistics.median(row["graph_s"] for row in starts[1:])
    found = {"first_graph_s": first, "second_graph_s": second, "ratio": round(first / max(second, 1e-3), 1)}
    return {"network": name, "patch": patch, "precision": precision, **found, "starts": starts}


def _process(place: Path, number: int, *given: str) -> dict[str, float]:
    command = [sys.executable, "-c", _START, str(place / f"run{number}"), *given]
    environment = os.environ | {CACHE_VARIABLE: str(place / "graphs")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None, small: bool = False, again: int = 2
) -> None:
    """Measure; `small` takes the smoke preset's network alone."""
    if reason := why_not(torch.device("cpu")):
        raise SystemExit(f"Nothing to measure: {reason}.")
    rows = [measure("smoke", 32, "fp32", again)]
    rows += [] if small else [measure("shipped", 64, "bf16", again)]
    found = {"machine": machine(), "versions": versions(), "rows": rows}
    print(json.dumps(rows, indent=2))
    if out is not None:
        emit_json(out, found)


if __name__ == "__main__":
    tyro.cli(main)
