"""One study's result on the terminal: its organs, what a reader should know, and its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medseg.errors import showable
from medseg.jobs.manifest import ManifestRow

MEASUREMENTS = "measurements.json"


def print_study(folder: Path, row: ManifestRow, console: Console | None = None) -> None:
    """Print the organ table of a finished study, its findings and the names of its files.

    Args:
        folder: the study's results.
        row: the study in the manifest.
        console: where to print; standard output by default.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    console.print(organ_table(json.loads((folder / MEASUREMENTS).read_text()), title=row.study))
    for finding in row.findings:
        console.print(f"  - {escape(finding)}")
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    console.print(f"{escape(str(folder))}: {escape(showable(names))}")


def organ_table(measurements: list[dict[str, Any]], title: str) -> Table:
    """The rows of measurements.json as a table; an organ that was not found has 0 ml and dashes."""
    table = Table("organ", title=escape(title))
    for heading in ("ml", "mean HU", "SD HU", "slices", "at edge", "probability"):
        table.add_column(heading, justify="right")
    for row in measurements:
        table.add_row(row["organ"], f"{row['volume_ml']:.1f}", *_figures(row))
    return table


def _figures(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        _number(row["mean_hu"], ".0f"),
        _number(row["sd_hu"], ".0f"),
        str(row["slices"]),
        "yes" if row["touches_edge"] else "",
        _number(row["mean_probability"], ".2f"),
    )


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
