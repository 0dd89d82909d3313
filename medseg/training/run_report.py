"""report.html of a run: curves, scores, the best and the worst case beside their references, settings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes

from medseg.evaluation import Scorecard
from medseg.imaging.emit import emit, emit_text
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.labels import LabelTable
from medseg.results.preview import write_preview
from medseg.training.cases import Dataset
from medseg.training.config import TrainConfig
from medseg.training.html import heading, page, paragraph, picture, table
from medseg.training.journal import read_journal
from medseg.training.plots import draw_calibration, draw_profile, draw_small_batch, figure, save
from medseg.training.profiler import read_timeline
from medseg.training.small_batch_result import read_small_batch
from medseg.training.validation import CALIBRATION

SHOWN = 2  # best and worst cases, each
REPORT = "report.html"


def write_report(out: Path, settings: TrainConfig, dataset: Dataset, scores: Scorecard | None) -> Path:
    """Write the report of a finished run into its folder.

    Args:
        out: the run's folder, with its log, `validation` and `scores`.
        settings: of the run.
        dataset: that it was trained on.
        scores: of the validation split; None without one.

    Raises:
        OutputError: it could not be written.
    """
    entries = read_journal(out)
    emit(out / "pictures" / "curves.png", lambda temporary: draw_curves(entries, temporary))
    parts = [*first_stage(out), heading("Training"), paragraph(_in_words(entries))]
    parts += [picture("pictures/curves.png", "Loss and Dice"), *_profile(out, entries)]
    if scores is not None:
        parts += _scored(out, dataset, scores)
    kept = settings.model_dump(mode="json", exclude={"index", "cache", "tracking"}, exclude_none=True)
    parts += [heading("Settings"), f"<pre>{_escaped(yaml.safe_dump(kept, sort_keys=False))}</pre>"]
    return emit_text(out / REPORT, page(f"Training of {settings.name} {settings.version}", parts))


def write_small_batch_report(out: Path, settings: TrainConfig) -> Path:
    """Write the report of a run that has come no further than its first stage.

    Raises:
        OutputError: it could not be written.
    """
    return emit_text(out / REPORT, page(f"Training of {settings.name} {settings.version}", first_stage(out)))


def first_stage(out: Path) -> list[str]:
    """The section on the small-batch validation; nothing where it was left out."""
    found = read_small_batch(out)
    if found is None:
        return []
    emit(out / "pictures" / "small_batch.png", lambda temporary: draw_small_batch(found, temporary))
    words = [paragraph(line[0].upper() + line[1:]) for line in found.lines()]
    caption = "Learning a few batches by heart; what a step and the whole training take"
    return [heading("Small-batch validation"), *words, picture("pictures/small_batch.png", caption)]


def _profile(out: Path, entries: Sequence[dict[str, Any]]) -> list[str]:
    """What bounded the steps, in words and over time."""
    found = [entry["profile"] for entry in entries if "profile" in entry]
    if not found:
        return []
    samples = [row for row in read_timeline(out) if row["waiting_share"] is not None]
    emit(out / "pictures" / "profile.png", lambda temporary: draw_profile(samples, temporary))
    missing = "; ".join(f"{metric}: {why}" for metric, why in found[-1]["missing"].items())
    parts = [heading("Profile"), paragraph(found[-1]["text"])]
    parts += [paragraph(f"Not measured here: {missing}.")] if missing else []
    return [*parts, picture("pictures/profile.png", "Shares and memory over the steps")]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _in_words(entries: Sequence[dict[str, Any]]) -> str:
    """Steps, time, how long was waited for data, and what half precision did."""
    notes = [entry for entry in entries if entry.get("loss") is not None]
    if not notes:
        return "No step was taken."
    last = notes[-1]
    waiting = sum(entry["waiting_share"] for entry in notes) / len(notes)
    amp = last["amp"]
    half = "not measured" if amp["half_share"] is None else f"{amp['half_share']:.0%}"
    took = f"{last['seconds'] / 60:.1f} minutes, the last ones {last['seconds_per_step']:.2f} s each"
    return (
        f"{last['step']} steps in {took}; "
        f"{waiting:.0%} of a step waits for data. Last mean loss {last['loss']:.3f}. Precision {amp['precision']}: "
        f"{half} of the floating-point work in half precision, {amp['skipped_steps']} steps skipped."
    )


def draw_curves(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss over steps, and Dice on the training grid where validation looked on the way."""
    sheet = figure()
    left, right = sheet.subplots(1, 2)
    notes = [entry for entry in entries if entry.get("loss") is not None]
    left.plot([entry["step"] for entry in notes], [entry["loss"] for entry in notes], color="#1f6f8b", marker=".")
    left.set(title="Training loss", xlabel="step")
    _draw_dice(right, [entry for entry in entries if "validation" in entry])
    save(sheet, path)


def _draw_dice(axes: Axes, looks: Sequence[dict[str, Any]]) -> None:
    organs = list(dict.fromkeys(name for look in looks for name in look["validation"]))
    for organ in organs:
        points = [(look["step"], look["validation"][organ]) for look in looks if organ in look["validation"]]
        style = {"color": "black", "linewidth": 2.5} if organ == "dice" else {"linewidth": 1}
        label = "mean" if organ == "dice" else organ.replace("_", " ")
        axes.plot(*zip(*points, strict=True), marker=".", label=label, **style)
    axes.set(title="Validation Dice on the training grid", xlabel="step", ylim=(0, 1))
    if organs:
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "loop.validate_steps is 0", ha="center", transform=axes.transAxes)


def _scored(out: Path, dataset: Dataset, scores: Scorecard) -> list[str]:
    parts = [heading("Scores on the validation split"), table(("organ", "cases", "Dice", "missed"), _rows(scores))]
    parts.append(picture("scores/plot.png", "Every case; left to right is worse to better"))
    parts += calibrated(out)
    ranked = _ranked(scores)
    chosen = dict([*ranked[:SHOWN], *ranked[-SHOWN:]])
    parts.append(heading("Worst and best cases"))
    for case, dice in chosen.items():
        for role in _draw_case(out, dataset, case):
            parts.append(picture(f"pictures/{case}_{role}.png", f"{case}, {role}; mean Dice {dice:.3f}"))
    return parts


def calibrated(out: Path) -> list[str]:
    """How far the model's own probabilities can be believed."""
    found = json.loads((out / CALIBRATION).read_bytes())
    if found["expected_calibration_error"] is None:
        return [paragraph("No contoured organ was found: nothing to calibrate.")]
    emit(out / "pictures" / "calibration.png", lambda temporary: draw_calibration(found, temporary))
    caption = f"Calibration of labelled voxels; expected error {found['expected_calibration_error']:.3f}"
    return [heading("Calibration"), picture("pictures/calibration.png", caption)]


def _rows(scores: Scorecard) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for organ, figures in scores.summary["organs"].items():
        mean = figures["dice"]["mean"]
        rows.append((organ, figures["n"], "-" if mean is None else f"{mean:.3f}", figures["misses"]))
    return rows


def _ranked(scores: Scorecard) -> list[tuple[str, float]]:
    """(case, mean Dice), worst first."""
    by_case: dict[str, list[float]] = defaultdict(list)
    for row in scores.rows:
        if row.figures.dice is not None:
            by_case[row.case].append(row.figures.dice)
    return sorted(((case, sum(dice) / len(dice)) for case, dice in by_case.items()), key=lambda pair: pair[1])


def _draw_case(out: Path, dataset: Dataset, name: str) -> list[str]:
    """Pictures of what was found and of the reference; returns their roles."""
    case = next(case for case in dataset.cases if case.id == name)
    labels = LabelTable.from_names(dataset.labels)
    volume = read_nifti(case.ct)
    for role, file in (("found", out / "validation" / f"{name}.nii.gz"), ("reference", case.label)):
        mask, _ = read_label_map(file)
        _draw(out / "pictures" / f"{name}_{role}.png", volume, mask, labels)
    return ["found", "reference"]


def _draw(path: Path, volume: Any, mask: Any, labels: LabelTable) -> None:
    emit(path, lambda temporary: write_preview(temporary, volume, mask, labels, ()))
