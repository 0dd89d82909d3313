"""Figures on the terminal; the last line is JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlretrieval.evaluation.embeddings import evaluate_embeddings, read_embeddings
from vlretrieval.evaluation.reports import FindingScores, cross_validate, evaluate_reports
from vlretrieval.reports.table import read_reports


def _show() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def report_findings(test: Path, train: Path | None) -> int:
    """Train on one CSV of reports and judge on another, or in folds of one.

    Raises:
        DataError: a CSV that cannot be used.
    """
    started, show = time.monotonic(), _show()

    def tell(what: str) -> None:
        show.print(f"[dim]learning[/] {escape(what)} ({time.monotonic() - started:.0f} s)")

    judged = read_reports(test)
    if train is None:
        scores, how = cross_validate(judged, tell=tell), "five folds"
    else:
        scores, how = evaluate_reports(read_reports(train), judged, tell=tell), f"trained on {train.name}"
    Console(highlight=False).print(_finding_table(scores))
    print(
        f"{scores.test} reports, {how} ({scores.train} to learn from, {scores.left_out} left out as also in the test)."
    )
    print(json.dumps(scores.to_json() | {"seconds": round(time.monotonic() - started, 1)}))
    return 0


def _finding_table(scores: FindingScores) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("finding", "AUROC", "present"):
        table.add_column(name, justify="left" if name == "finding" else "right")
    for name, area, positives in zip(scores.findings, scores.auroc, scores.positives, strict=True):
        table.add_row(escape(name), f"{area:.3f}", str(positives))
    table.add_row("mean", f"{scores.mean:.3f}", f"({scores.low:.3f}-{scores.high:.3f})")
    return table


def report_embeddings(images: Path, texts: Path) -> int:
    """Judge vectors of images and texts.

    Raises:
        DataError: files that cannot be used, or that do not belong together.
    """
    figures = evaluate_embeddings(read_embeddings(images), read_embeddings(texts))
    show = Console(highlight=False)
    for direction, found in figures.items():
        show.print(f"{direction.replace('_', ' ')}: {_line(found)}")
    print(json.dumps(figures))
    return 0


def _line(found: dict[str, Any]) -> str:
    if not found["queries"]:
        return "no query has a right answer"
    recall = ", ".join(
        f"R@{k} {value[0]:.1%} (chance {found['chance'][k]:.1%})" for k, value in found["recall"].items()
    )
    return (
        f"{found['queries']} queries in a pool of {found['pool']:g}: {recall}, median rank {found['median_rank'][0]:g}"
    )
