"""Plots of a run beside its curves: the first stage, and what the steps waited for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medseg.training.small_batch_result import SmallBatch

_BLUE, _AMBER, _GREY = "#1f6f8b", "#c77d0a", "#8795a1"


def figure() -> Figure:
    """A sheet for two plots side by side."""
    sheet = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(sheet)
    return sheet


def save(sheet: Figure, path: Path) -> None:
    """Write it as PNG, without the time."""
    sheet.savefig(path, dpi=90, format="png", metadata={"Software": "medseg"})


def draw_small_batch(found: SmallBatch, path: Path) -> None:
    """The loss of the batches that were learnt by heart, and where a step's time goes."""
    sheet = figure()
    left, right = sheet.subplots(1, 2, width_ratios=(3, 2))
    left.plot(range(1, len(found.losses) + 1), found.losses, color=_BLUE, marker=".")
    for level, word in ((found.loss_before, "first time"), (found.loss_after, "last time")):
        left.axhline(level, color=_GREY, linestyle="--", linewidth=1)
        left.annotate(f"{word} {level:.2f}", (len(found.losses), level), ha="right", va="bottom", fontsize=8)
    left.set(title="Loss of the same batches, again and again", xlabel="step", ylim=(0, None))
    waiting = found.bottleneck.waiting_share * found.bottleneck.seconds_per_step
    right.barh(["one step"], [found.bottleneck.seconds_per_step - waiting], color=_BLUE, label="computes")
    left_edge = found.bottleneck.seconds_per_step - waiting
    right.barh(["one step"], [waiting], left=[left_edge], color=_AMBER, label="waits for data")
    right.barh(["one validation case"], [found.seconds_per_case], color=_GREY)
    right.set(title="Seconds", xlim=(0, None))
    right.legend(fontsize=8)
    save(sheet, path)


def draw_profile(samples: Sequence[dict[str, Any]], path: Path) -> None:
    """Waiting and processor time as shares, and memory, over the steps of a run."""
    sheet = figure()
    left, right = sheet.subplots(1, 2)
    steps = [sample["step"] for sample in samples]
    for key, colour, label in (
        ("waiting_share", _AMBER, "step waits for data"),
        ("cpu_share", _BLUE, "processors at work"),
        ("gpu_util", "#4c8c4a", "GPU at work"),
    ):
        points = [
            (step, sample[key]) for step, sample in zip(steps, samples, strict=True) if sample.get(key) is not None
        ]
        if points:
            left.plot(*zip(*points, strict=True), color=colour, marker=".", label=label)
    left.set(title="Share of the time", xlabel="step", ylim=(0, 1.05))
    if steps:
        left.legend(fontsize=8)
    right.plot(steps, [sample["memory_mb"] / 1024 for sample in samples], color=_BLUE, marker=".")
    right.set(title="Memory, GB, of all processes of the run", xlabel="step", ylim=(0, None))
    save(sheet, path)


def draw_calibration(found: dict[str, Any], path: Path) -> None:
    """Share of labelled voxels that are right over the model's probability, and how many voxels there are."""
    sheet = figure()
    left, right = sheet.subplots(1, 2)
    rows = [row for row in zip(found["voxels"], found["sure"], found["right"], strict=True) if row[0]]
    left.plot((0, 1), (0, 1), color=_GREY, linestyle="--", linewidth=1, label="as sure as right")
    left.plot([sure / n for n, sure, _ in rows], [good / n for n, _, good in rows], color=_BLUE, marker="o")
    left.set(title="Right labels", xlabel="probability that the model gives", ylabel="share", xlim=(0, 1), ylim=(0, 1))
    left.legend(fontsize=8)
    places = [(n + 0.5) / found["bins"] for n in range(found["bins"])]
    right.bar(places, found["voxels"], width=0.9 / found["bins"], color=_BLUE)
    right.set(title="Labelled voxels", xlabel="probability that the model gives", xlim=(0, 1))
    save(sheet, path)
