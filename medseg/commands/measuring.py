"""Commands that measure: masks against references, this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from medseg.commands.arguments import MaybeOut, Out

if TYPE_CHECKING:
    from medseg.evaluation.scorecard import Scorecard

COMPARISON = "comparison.json"


def evaluate(
    predictions: Annotated[Positional[Path], arg(metavar="MASKS")],
    references: Annotated[Positional[Path], arg(metavar="REFERENCES")],
    /,
    out: Out,
    index: Path | None = None,
    organs: tuple[str, ...] = (),
    within_contoured: tuple[str, ...] | None = None,
    margin_slices: int = 1,
    tolerance_mm: float = 5.0,
    against: tuple[Path, ...] = (),
    seeds: tuple[Path, ...] = (),
) -> int:
    """Score masks against references: Dice, surface Dice, HD95, misses counted apart.

    Writes scores.csv (a row per case and organ), scores.json and plot.png into OUT; with --against also
    comparison.json, which says whether one model is better than another on these patients.

    Args:
        predictions: Results of `medseg segment`, a folder of label maps, or one file.
        references: Folder of reference label maps (ID_label.nii.gz or ID.nii.gz), or one file.
        out: Folder for the scores.
        index: JSON with the label table and, per case, which organs were contoured and whose it is (`patient`); if
            not given, it is looked for beside the references.
        organs: Score only these organs.
        within_contoured: Judge these organs only between their first and last contoured slice; the plain
            figure stands beside. If not given: spinal cord and esophagus, where there are such.
        margin_slices: Slices added to both ends of that range.
        tolerance_mm: Distance that surface Dice forgives.
        against: Masks of another model for the same patients, one folder for each of its seeds: differences of Dice
            with 95 % intervals over patients.
        seeds: Masks of further seeds of the first model, for that comparison.
    """
    from functools import partial

    from medseg.errors import ConfigError
    from medseg.evaluation import evaluate as score

    if seeds and not against:
        raise ConfigError("--seeds are further seeds for a comparison.", advice="Say with what: --against FOLDER.")
    scored = partial(
        score,
        references=references,
        index=index,
        organs=organs or None,
        within_contoured=within_contoured,
        margin_slices=margin_slices,
        tolerance_mm=tolerance_mm,
    )
    card = scored(predictions, out=out)
    Console().print(card.table())
    (out / COMPARISON).unlink(missing_ok=True)  # of scores that stood here before
    if against:
        _compare([card, *map(scored, seeds)], list(map(scored, against)), out / COMPARISON)
    print(f"Scores: {out}")
    return 0


def _compare(ours: Sequence[Scorecard], theirs: Sequence[Scorecard], out: Path) -> None:
    """Say and write whether one model is better; of the first card all has been told already."""
    from medseg.evaluation.paired import compare_cards, comparison_table
    from medseg.imaging.emit import emit_json

    found = compare_cards(ours, theirs)
    for note in dict.fromkeys(note for card in (*ours[1:], *theirs) for note in card.notes):
        print(f"Further masks: {note}")
    Console().print(comparison_table(found))
    emit_json(out, found)


def benchmark(
    what: Positional[Literal["memory", "tile", "specification"]],
    /,
    model: str = "head-neck-oar",
    classes: int = 117,
    shape: str = "512,512,800",
    max_memory: str | None = None,
    ablation: Path | None = None,
    out: MaybeOut = None,
) -> int:
    """Measure this machine: `tile` (what runs a model fastest), `memory` (does a long scan fit?) or `specification`.

    `memory` segments a computed scan with random weights, every class everywhere, compares the peak with the
    forecast and the labels with MONAI's. With 117 classes and 800 slices it takes half an hour or more on two cores.
    `specification` puts each promise of the specification beside what is measured here, ours and its baseline in
    turns; rows that need a GPU are filled where there is one.

    Args:
        what: memory, tile or specification.
        model: For `tile` and `specification`: name of an installed model or folder of a package.
        classes: For `memory`: background included.
        shape: For `memory`: voxels along the three axes, at least 128 each.
        max_memory: For `memory`: a limit to keep, e.g. 2GB.
        ablation: For `specification`: result of benchmarks/ablation.py, for the row that takes hours.
        out: JSON file for the figures; for `specification` also a Markdown file that gets the table.
    """
    from medseg.benchmark.console import report_memory, report_specification, report_tile
    from medseg.errors import ConfigError
    from medseg.runtime.options import parse_memory_mb

    if what == "tile":
        return report_tile(model, out)
    if what == "specification":
        return report_specification(model, ablation, out)
    try:
        i, j, k = (int(size) for size in shape.split(","))
    except ValueError:
        raise ConfigError(f"--shape {shape} is not three numbers.", advice="Write it as 512,512,800.") from None
    limit = None if max_memory is None else parse_memory_mb(max_memory)
    return report_memory(classes, (i, j, k), limit, out)
