"""The benchmarks on the terminal: tables, and JSON where it is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from medseg.benchmark.memory import MemoryResult, benchmark_memory
from medseg.benchmark.specification import Row, specification
from medseg.benchmark.tile import as_json, benchmark_tile
from medseg.errors import ConfigError
from medseg.imaging.emit import emit_json, emit_text
from medseg.models.store import load_model
from medseg.runtime.provenance import machine

COLUMNS = ("promise", "specification", "baseline here", "ours here", "ratio", "measured on")
BEGIN, END = "<!-- medseg benchmark specification: begin -->", "<!-- medseg benchmark specification: end -->"


def report_memory(classes: int, shape: tuple[int, int, int], max_memory_mb: float | None, out: Path | None) -> int:
    """Run, print, and return 0 where MONAI agrees and the limit was kept, else 1."""
    with TemporaryDirectory(prefix="medseg-") as folder, Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("Windows", total=1.0)
        result = benchmark_memory(
            classes, shape, Path(folder) / "mask.nii.gz", max_memory_mb, lambda share: bar.update(task, completed=share)
        )
    _print_memory(result)
    if out is not None:
        emit_json(out, result.to_json())
    kept = max_memory_mb is None or result.peak_memory_mb <= max_memory_mb
    return 0 if kept and result.equal_to_monai >= 0.9999 else 1


def _print_memory(result: MemoryResult) -> None:
    shape = " x ".join(str(size) for size in result.shape)
    table = Table(title=f"{result.classes} classes, {shape} voxels")
    for column in ("", "forecast", "measured"):
        table.add_column(column)
    plan = result.forecast
    table.add_row("peak memory", f"{plan.memory_mb / 1024:.2f} GB", f"{result.peak_memory_mb / 1024:.2f} GB")
    table.add_row("time", f"{plan.seconds:.0f} s", f"{result.seconds:.0f} s")
    table.add_row("columns of the plane", f"{plan.parts[0]} x {plan.parts[1]}", "")
    table.add_row("labels equal to MONAI's", "", f"{result.equal_to_monai:.4%} of {result.compared_voxels:,} voxels")
    Console().print(table)


def report_tile(model: str, out: Path | None) -> int:
    """Run, print, and return 0."""
    results = benchmark_tile(load_model(model))
    eager = next(result.best for result in results if str(result.candidate) == "torch fp32")
    table = Table(title=f"{model}: one window")
    for column in ("way", "seconds, best of each round", "times PyTorch eager fp32"):
        table.add_column(column)
    for result in results:
        seconds = "  ".join(f"{value:.3f}" for value in result.seconds)
        table.add_row(str(result.candidate), seconds, f"{eager / result.best:.2f}")
    Console().print(table)
    if out is not None:
        emit_json(out, {"model": model, "seconds": as_json(results), "machine": machine()})
    return 0


def report_specification(model: str, ablation: Path | None, out: Path | None) -> int:
    """Run, print, write where it is wanted, and return 0.

    Raises:
        ConfigError: the model has no network.
    """
    console, package = Console(), load_model(model)
    if package.card.network is None:
        raise ConfigError(f"{package.card.id} works by rules and has no network to measure.")
    with Console(stderr=True).status("Measuring, some minutes") as status:
        rows = specification(package, ablation, on_row=lambda row: status.update(f"Measured: {row.what}"))
    table = Table(title="The specification's promises")
    for column in COLUMNS:
        table.add_column(column)
    for row in rows:
        table.add_row(*astuple(row))
    console.print(table)
    if out is not None and out.suffix == ".md":
        put_markdown(out, rows)
    elif out is not None:
        emit_json(out, {"model": package.card.id, "rows": [asdict(row) for row in rows], "machine": machine()})
    return 0


def put_markdown(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as a table between two comments in a Markdown file; at its end where there are none yet."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(astuple, rows)]
    text = "\n".join([BEGIN, "", *(f"| {' | '.join(line)} |" for line in lines), "", END])
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, begun, rest = old.partition(BEGIN)
    emit_text(path, f"{before}{text}{rest.partition(END)[2]}" if begun else f"{old}\n{text}\n")
