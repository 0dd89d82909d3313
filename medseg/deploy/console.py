"""`medseg export` on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medseg.deploy.package import Exported, Request, export_package
from medseg.models.card import ModelCard, Variant
from medseg.models.store import load_model

SOME_FAILED = 3


def export_and_report(
    model: str, out: Path | None, *, int8: bool, share: bool, calibrate: Path | None, references: Path | None
) -> int:
    """Export, print what entered and what was refused; returns the exit code."""
    package = load_model(model)
    out = out or Path(f"{package.card.name}-{package.card.version}-export")
    request = Request(out, int8=int8, share=share, calibrate=calibrate, references=references)
    console = Console(soft_wrap=True)
    done = export_package(package, request, lambda line: console.print(line, markup=False, highlight=False))
    console.print(_table(done.card))
    for name, objections in done.refused.items():
        console.print(f"[yellow]{escape(name)} stayed outside:[/yellow] {escape('; '.join(objections))}.")
    console.print(f"Model package: {done.folder}", markup=False, highlight=False)
    return _code(done)


def _code(done: Exported) -> int:
    return SOME_FAILED if done.refused else 0


def _table(card: ModelCard) -> Table:
    columns = ("variant", "size", "of fp32", "tile", "of PyTorch", "agreement", "Dice", "fp32")
    table = Table(*columns, title=escape(f"{card.id}: what passed the parity gate"))
    for variant in card.variants:
        table.add_row(*_row(variant))
    return table


def _row(variant: Variant) -> tuple[str, ...]:
    figures = variant.figures
    return (
        variant.name,
        f"{figures.size_bytes / 1e6:.1f} MB",
        f"{figures.size_ratio:.1%}",
        f"{figures.seconds:.3f} s",
        f"{figures.latency_ratio:.0%}",
        _mean([value for value in figures.agreement.values() if value is not None]),
        _mean(list(figures.dice.values())),
        _mean(list(figures.dice_fp32.values())),
    )


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.4f}" if values else "-"
