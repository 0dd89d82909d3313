"""Where does this data's ceiling lie? Mean Dice over the number of cases, the time and the width, one at a time.

`PYTHONPATH=. python benchmarks/learning_curves.py --work WORK --steps 900 -o OUT.json`

Every point is a training of the config with a number of steps, which mean the same on every machine, scored on all
validation patients; the points of a curve share all else, and fewer cases are a part of more. The last doubling of each
curve is compared in pairs, with an interval over patients: what another doubling may bring is read from it. OUT.png
draws the curves. OUT holds every training's scores: with the same command a killed run goes on, on another machine
too; another recipe or other data are refused. `--smoke` tries all of it on computed bodies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import isnan
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import tyro

from benchmarks.recipe import agreed, data_of, keep_recipe, recipe_of
from medseg.evaluation.paired import compare, mean_dice, score
from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import machine, versions
from medseg.training.cases import Dataset, read_index
from medseg.training.config import PhantomConfig, load_config, parse_settings
from medseg.training.journal import read_journal
from medseg.training.phantoms import write_phantoms
from medseg.training.run import train_model
from medseg.training.subset import write_subset


@dataclass(frozen=True)
class Arguments:
    """What to train."""

    work: Path
    """Folder for runs; the same command goes on in it."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """JSON file of the result, gone on with where it exists; its picture beside it."""
    config: str = "head-neck-oar"
    """Config or preset: data, network, recipe."""
    index: Path | None = None
    """Data in place of the config's."""
    steps: int = 900
    """Of every training but those of the curve over time."""
    cases: tuple[int, ...] = (20, 40, 80)
    """Numbers of training cases; all of them come on top."""
    times: tuple[float, ...] = (0.25, 0.5, 2.0)
    """Of the steps."""
    widths: tuple[float, ...] = (0.5, 2.0)
    """Of the config's channels."""
    seeds: tuple[int, ...] = (0,)
    """One training of every point each."""
    set_: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Further settings of all, KEY=VALUE."""
    smoke: bool = False
    """Computed bodies and a handful of steps."""


@dataclass(frozen=True)
class Point:
    """A training: number of cases, share of the steps, share of the channels."""

    cases: int
    time: float = 1.0
    width: float = 1.0


def curves_of(given: Arguments, there: int) -> dict[str, list[Point]]:
    """Axis -> its points in rising order; all of them share the one with all cases, steps and channels."""
    numbers = sorted({min(number, there) for number in (*given.cases, there)})
    return {
        "cases": [Point(number) for number in numbers],
        "time": [Point(there, time=share) for share in sorted({*given.times, 1.0})],
        "width": [Point(there, width=share) for share in sorted({*given.widths, 1.0})],
    }


def main(given: Arguments) -> dict[str, Any]:
    """Train, score, compare, draw, write."""
    given = _smoke(given) if given.smoke else given
    index = given.index or load_config(given.config).index
    if index is None:
        raise SystemExit("Give --index, or --smoke.")
    dataset = read_index(index)
    found = _begun(given, dataset)
    curves = curves_of(given, len(dataset.of("train")))
    for point, seed in product(dict.fromkeys(point for points in curves.values() for point in points), given.seeds):
        name = _name(given, point, seed)
        if name not in found["trainings"]:
            found["trainings"][name] = _train(given, dataset, point, seed, given.work / name)
        found["curves"] = {axis: _curve(given, found, axis, points, dataset) for axis, points in curves.items()}
        emit_json(given.out, found)
        draw(found["curves"], given.out.with_suffix(".png"))
    return found


def _begun(given: Arguments, dataset: Dataset) -> dict[str, Any]:
    """What OUT holds, if it was trained with the same recipe on the same data."""
    config = load_config(given.config, parse_settings(given.set_))
    now = {"recipe": recipe_of(config, "max_steps", "max_minutes", "seed"), "data": data_of(dataset)}
    none = {"machine": machine(), "versions": versions(), "trainings": {}}
    return agreed(given.out, json.loads(given.out.read_text()) if given.out.is_file() else none, now)


def _smoke(given: Arguments) -> Arguments:
    index = write_phantoms(given.work / "phantoms", PhantomConfig(train=3, validation=2))
    own = ("loop.warmup_steps=1", "loop.workers=0", "loop.validate_steps=0")
    few = {"cases": (2,), "times": (0.5,), "widths": (0.5,), "steps": 4}
    return replace(given, config="smoke", index=index, set_=(*own, *given.set_), **few)


def nested(dataset: Dataset, count: int) -> list[str]:
    """So many training cases, in an order that their names decide: fewer are a part of more."""
    names = [case.id for case in dataset.of("train")]
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


def _name(given: Arguments, point: Point, seed: int) -> str:
    return f"{point.cases}cases-{round(point.time * given.steps)}steps-{point.width:g}width-{seed}"


def _train(given: Arguments, dataset: Dataset, point: Point, seed: int, folder: Path) -> dict[str, Any]:
    """A training, or what is left of it; its scores, and what a step took here."""
    settings = _settings(given, folder / "data" / "index.json", point, seed)
    keep_recipe(folder, {"recipe": recipe_of(load_config(given.config, settings)), "data": data_of(dataset)})
    splits = dict.fromkeys(nested(dataset, point.cases), "train")
    splits |= {case.id: "validation" for case in dataset.of("validation")}
    index = write_subset(dataset, folder / "data", splits)
    train_model(given.config, folder, resume=True, stage="full", overrides=settings)
    references = read_index(index).of("validation")[0].label.parent
    log = [row for row in read_journal(folder) if "seconds_per_step" in row]
    return {
        "precision": log[-1]["amp"]["precision"],
        "seconds_per_step": round(median(row["seconds_per_step"] for row in log), 3),
        "scores": score(folder / "validation", references, index, list(dataset.labels)),
    }


def _settings(given: Arguments, index: Path, point: Point, seed: int) -> dict[str, Any]:
    config = load_config(given.config, parse_settings(given.set_))
    options = dict(config.network.options)
    options["channels"] = [max(4, round(point.width * n)) for n in options["channels"]]
    own: dict[str, Any] = {"index": index, "network.options": options, "loop.seed": seed}
    own |= {"loop.max_steps": round(point.time * given.steps), "cache": given.work / "cache"}
    return parse_settings(given.set_) | own


def _curve(given: Arguments, found: dict[str, Any], axis: str, points: list[Point], dataset: Dataset) -> dict[str, Any]:
    """The points that are done, and what the last step between them brought, in pairs of patients."""
    organs, rows, runs = list(dataset.labels), [], []
    for point in points:
        done = [found["trainings"].get(_name(given, point, seed)) for seed in given.seeds]
        if all(done):
            runs.append([run["scores"] for run in done])
            rows.append(_row(given, axis, point, runs[-1], organs))
    last = compare(runs[-1], runs[-2], organs, dataset.patients) if len(runs) > 1 else None
    return {"points": rows, "last_step": last}


def _row(
    given: Arguments, axis: str, point: Point, runs: Sequence[dict[str, dict[str, float]]], organs: list[str]
) -> dict[str, Any]:
    place = {"cases": point.cases, "time": round(point.time * given.steps), "width": point.width}[axis]
    means = {organ: sum(mean_dice(run, [organ]) for run in runs) / len(runs) for organ in organs}
    return {
        "at": place,
        "dice": [_rounded(mean_dice(run, organs)) for run in runs],
        "organs": {organ: _rounded(mean) for organ, mean in means.items()},
    }


def _rounded(mean: float) -> float | None:
    """None for an organ that no validation patient counts for."""
    return None if isnan(mean) else round(mean, 4)


def draw(curves: dict[str, Any], out: Path) -> None:
    """One panel an axis: every organ's Dice, and their mean in black."""
    titles = {"cases": "training cases", "time": "steps of training", "width": "channels, times the config's"}
    figure, panels = plt.subplots(1, len(curves), figsize=(13, 4), sharey=True, layout="constrained")
    for panel, (axis, curve) in zip(panels, curves.items(), strict=True):
        places = [row["at"] for row in curve["points"]]
        for organ in curve["points"][0]["organs"] if places else ():
            # A missing figure (None) becomes NaN, which is left blank.
            values = np.array([row["organs"][organ] for row in curve["points"]], dtype=float)
            panel.plot(places, values, marker=".", label=organ)
        means = [np.mean(np.array(row["dice"], dtype=float)) for row in curve["points"]]
        panel.plot(places, means, color="black", linewidth=2.5, marker="o", label="mean")
        panel.set(xscale="log", xlabel=titles[axis], xticks=places, xticklabels=[f"{place:g}" for place in places])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("Dice, validation")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(out, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
