"""A batch on the terminal: a line for every study that is over, below it a bar with the time left, and a summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from medseg.errors import showable
from medseg.jobs.batch import run_batch
from medseg.jobs.manifest import ManifestRow
from medseg.jobs.organ_table import MEASUREMENTS, print_study
from medseg.jobs.report import BatchProgress, BatchReport
from medseg.jobs.request import SEGMENT, Work
from medseg.jobs.studies import find_studies
from medseg.models.store import load_model
from medseg.runtime.options import Options


def run_and_report(
    paths: Sequence[Path],
    out: Path,
    *,
    model: str,
    series: str | None = None,
    force: bool = False,
    workers: int = 1,
    work: Work = SEGMENT,
    options: Options | None = None,
    formats: Sequence[str] = (),
) -> int:
    """Segment all studies in `paths`, show it on the terminal, and return the exit code.

    Progress and skipped files go to standard error, the summary to standard output.

    Args:
        paths: studies and folders of studies.
        out: folder of the results.
        model: name of the model.
        series: number or UID of the series, where studies hold several.
        force: compute again what is finished and unchanged.
        workers: studies at the same time.
        work: what the processes run.
        options: backend, precision and the limit of memory of one process.
        formats: further files of every result, see `medseg.exports`.

    Raises:
        MedsegError: nothing could be started, see `run_batch`.
    """
    if options is not None and options.probabilities:
        load_model(model).card.maps(options.probabilities)  # a slip of the pen is told before any study
    with BatchDisplay() as show:
        studies = [study for path in paths for study in find_studies(path, exclude=[out], report=show.skipped)]
        report = run_batch(
            studies,
            out,
            model=model,
            series=series,
            force=force,
            workers=workers,
            progress=show,
            work=work,
            options=options,
            formats=formats,
        )
    _print_single(report)
    print(summary(report))
    return report.exit_code


def _print_single(report: BatchReport) -> None:
    """Of one study people want to see the organs at once; of many there is the manifest."""
    finished = [*report.done, *report.unchanged]
    if report.total == 1 and finished and (report.out / finished[0].study / MEASUREMENTS).is_file():
        print_study(report.out / finished[0].study, finished[0])


class BatchDisplay:
    """Shows a batch on standard error; a file or pipe gets only the lines.

    Use it as `with BatchDisplay() as show: run_batch(..., progress=show)`.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}"),
        )
        self._bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal)
        self._task = self._bar.add_task("", total=None, left="")
        self._told = 0

    def __enter__(self) -> BatchDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def skipped(self, path: Path, reason: str) -> None:
        """Tell that a file is not looked at."""
        self.console.print(f"[yellow]skipped[/]    {escape(showable(str(path)))} {escape(reason)}")

    def __call__(self, moment: BatchProgress) -> None:
        """Show one moment."""
        for study, progress in moment.running:
            if moment.total == 1 and progress.stage == "forecast":  # of many, the time left tells more
                self.console.print(f"[dim]forecast[/]   {escape(study)}: {escape(progress.message)}")
        for row in moment.rows[self._told :]:
            self.console.print(_line(row))
        self._told = len(moment.rows)
        under_way = ", ".join(
            f"{study}: {progress.stage} {progress.fraction:.0%}" for study, progress in moment.running
        )
        left = "" if moment.seconds_left is None else f"{_span(moment.seconds_left)} left"
        completed = len(moment.rows) + sum(progress.fraction for _, progress in moment.running)
        self._bar.update(self._task, total=moment.total, completed=completed, description=escape(under_way), left=left)


def _line(row: ManifestRow) -> str:
    if row.status == "failed":
        return f"[red]failed[/]     {escape(row.study)}: {escape(row.message)} {escape(row.advice)}"
    if row.status == "skipped-unchanged":
        return f"[dim]unchanged[/]  {escape(row.study)}"
    kept = f"; the earlier result, which had been changed, is kept as {escape(row.kept)}" if row.kept else ""
    return f"[green]done[/]       {escape(row.study)} ({_span(row.seconds)}){kept}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def summary(report: BatchReport) -> str:
    """The closing words: counts, each failure with its input and reason, and where everything lies."""
    counts = f"{len(report.done)} done, {len(report.unchanged)} unchanged, {len(report.failed)} failed"
    missing = report.total - len(report.rows)
    lines = [f"{counts}, {missing} not reached." if missing else f"{counts}."]
    lines += [f"  {row.path}\n    {row.error}: {row.message} {row.advice}".rstrip() for row in report.failed]
    if report.interrupted:
        lines.append("Interrupted. The same command goes on where it stopped.")
    return "\n".join([*lines, f"Results and manifest: {report.out}"])
