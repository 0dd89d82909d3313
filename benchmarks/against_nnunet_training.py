"""Ours and nnU-Net v2 trained on the same patients for the same counted time, scored on the same validation patients.

`PYTHONPATH=. python benchmarks/against_nnunet_training.py --index INDEX --work WORK --nnunet BIN -o OUT.json`

Only training iterations count. Trained is on those training patients in whom all of `--organs` are contoured (nnU-Net
knows no partial labels), scored on every validation patient's contoured ones. nnU-Net plans for itself, once for every
`--memory-targets`, and its schedule ends with the time; `--choose-minutes` of each decide which plan goes on. The two
never run side by side. Everything can be killed: the same command goes on, and another recipe, other organs or other
data in WORK are refused. `--smoke` tries all of it on computed bodies in a minute (without `--nnunet` it compares two
seeds of ours).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from benchmarks.recipe import agreed, data_of, keep_recipe, recipe_of
from medseg.evaluation.paired import compare, mean_dice, score
from medseg.imaging.emit import emit_json
from medseg.imaging.nifti import read_label_map, write_label_map
from medseg.models.importers.run import import_models
from medseg.runtime.provenance import machine, versions
from medseg.training.cases import CaseFiles, Dataset, read_index
from medseg.training.config import PhantomConfig, load_config, parse_settings
from medseg.training.links import link
from medseg.training.phantoms import write_phantoms
from medseg.training.run import train_model
from medseg.training.subset import write_subset

CORE = ("brainstem", "spinal_cord", "parotid_gland_right", "parotid_gland_left", "mandible")
PLAIN = "nnUNetTrainer"
ID = 901
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Arguments:
    """What to compare."""

    work: Path
    """Folder for data, runs and masks; the same command goes on in it."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """JSON file of the result."""
    index: Path | None = None
    """Our index.json."""
    config: str = "head-neck-oar"
    """Config or preset of ours."""
    nnunet: Path | None = None
    """bin folder of the environment that holds nnU-Net v2."""
    earlier: Path | None = None
    """JSON of an earlier result: nnU-Net's runs are taken from there, only ours train anew."""
    minutes: float = 45.0
    """Counted training time of each run."""
    seeds: tuple[int, ...] = (0, 1)
    """One run of each side a seed."""
    organs: tuple[str, ...] = CORE
    """What is trained and scored."""
    memory_targets: tuple[float, ...] = (2.0, 4.0, 8.0)
    """GB that nnU-Net's planner is given."""
    trainers: tuple[str, ...] = (PLAIN,)
    """nnU-Net's own. nnUNetTrainer_onlyMirror01+nnUNetTrainerAdam1en3 tells left from right and learns sooner."""
    choose_minutes: float = 10.0
    """Of each plan with each trainer, to choose the pair that goes on."""
    bf16: bool = False
    """nnU-Net in bf16, too, which by itself trains in fp32 on a CPU."""
    masks: Literal["nnunet", "faithful", "default"] = "nnunet"
    """What segments with nnU-Net's weights: its own command (hours), or `medseg segment` with nnU-Net's windows and
    mirror images (the same masks) or with our default (minutes, and a little worse)."""
    short: float | None = None
    """Ours also trained for this share of the time, each seed: is that enough for nnU-Net's Dice?"""
    steps: tuple[int, ...] = ()
    """Ours by steps in place of minutes, a number a seed: those that fitted into the minutes where nnU-Net was timed
    (with `--earlier`, on a slower computer)."""
    set_: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Further settings of ours, KEY=VALUE."""
    smoke: bool = False
    """Computed bodies and a handful of steps: does all of it work?"""


def main(given: Arguments) -> dict[str, Any]:
    """Train, score, compare, write."""
    given = _smoke(given) if given.smoke else given
    if given.index is None:
        raise SystemExit("Give --index, or --smoke.")
    index = five_organs(read_index(given.index), given.organs, given.work / "data")
    dataset = read_index(index)
    steps = given.steps or (None,) * len(given.seeds)
    ours = [our_run(given, index, dataset, *run) for run in zip(given.seeds, steps, strict=True)]
    part = replace(given, minutes=given.minutes * (given.short or 0))
    short = [our_run(part, index, dataset, seed) for seed in given.seeds] if given.short else []
    theirs = _earlier(given, index) if given.earlier else their_runs(given, dataset) if given.nnunet else []
    found: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "data": _data(index),
        "minutes": given.minutes,
        "patients": {"train": len(dataset.of("train")), "validation": len(dataset.of("validation"))},
        "ours": ours,
        "ours_short": short,
        "nnunet": theirs if given.earlier is None else f"as in {given.earlier.name}",
    }
    if theirs:
        found["comparison"] = _paired(ours, theirs, given.organs, dataset)
    if theirs and short:
        found["comparison_short"] = _paired(short, theirs, given.organs, dataset)
    emit_json(given.out, found)
    print(json.dumps({key: value for key, value in found.items() if "comparison" in key}, indent=2))
    return found


def _earlier(given: Arguments, index: Path) -> list[dict[str, Any]]:
    """nnU-Net's runs of a result that was written before: the same data and seeds, and time where ours has one."""
    assert given.earlier is not None
    found = agreed(given.earlier, json.loads(given.earlier.read_text()), {"data": _data(index)})
    runs = {run["seed"]: run for run in found["nnunet"]}
    if not (given.steps or found["minutes"] == given.minutes) or not set(given.seeds) <= set(runs):
        raise SystemExit(f"{given.earlier}: {found['minutes']:g} minutes, seeds {sorted(runs)}; give the same.")
    return [runs[seed] for seed in given.seeds]


def _paired(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], organs: tuple[str, ...], dataset: Dataset
) -> dict[str, Any]:
    return compare([run["scores"] for run in ours], [run["scores"] for run in theirs], organs, dataset.patients)


def _smoke(given: Arguments) -> Arguments:
    index = write_phantoms(given.work / "phantoms", PhantomConfig(train=6, validation=2))
    own = ("loop.max_steps=12", "loop.warmup_steps=2", "loop.workers=0", "loop.validate_steps=0")
    return replace(
        given, index=index, config="smoke", organs=("ball_left", "box_right", "rod"), minutes=1.0, choose_minutes=0.05,
        memory_targets=(1.0,), set_=(*own, *given.set_),
    )  # fmt: skip


def five_organs(dataset: Dataset, organs: tuple[str, ...], folder: Path) -> Path:
    """An index of the training patients who show all organs, and all validation patients; labels 1, 2 ...

    Raises:
        SystemExit: the folder holds one of other data or organs.
    """
    chosen = _chosen(dataset, organs)
    index, made = folder / "index.json", _described(chosen, organs)
    finished = index.is_file()
    if finished:
        agreed(folder, json.loads(index.read_text()), made)
    mapping = {dataset.labels[organ]: value for organ, value in made["labels"].items()}
    for case in read_index(write_subset(chosen, folder / "all_labels", {c.id: c.split for c in chosen.cases})).cases:
        link(folder / case.split / f"{case.id}_ct.nii.gz", case.ct)
        mask = folder / case.split / f"{case.id}_label.nii.gz"
        # Without an index, a mask is what a killed start left, maybe one with other organs.
        if not (finished and mask.is_file()):
            _relabel(case, mapping, mask)
    return emit_json(index, made)


def _chosen(dataset: Dataset, organs: tuple[str, ...]) -> Dataset:
    whole = [case.id for case in dataset.of("train") if set(organs) <= set(case.contoured)]
    kept = {*whole, *(case.id for case in dataset.of("validation"))}
    return replace(dataset, cases=tuple(case for case in dataset.cases if case.id in kept))


def _described(chosen: Dataset, organs: tuple[str, ...]) -> dict[str, Any]:
    """What the index of these cases and organs holds, and what it is made from."""
    contoured = {case.id: [organ for organ in organs if organ in case.contoured] for case in chosen.cases}
    entries = [
        {"id": case.id, "split": case.split, "contoured": contoured[case.id]}
        | ({"patient": case.patient} if case.patient != case.id else {})
        for case in chosen.cases
    ]
    labels = {organ: number for number, organ in enumerate(organs, 1)}
    return {"labels": labels, "cases": entries, "made_from": data_of(chosen)}


def _data(index: Path) -> dict[str, Any]:
    """Label values and cases behind an index of `five_organs`."""
    found = json.loads(index.read_text())
    return {"labels": found["labels"], "made_from": found["made_from"]}


def _index_of(dataset: Dataset) -> Path:
    return dataset.cases[0].label.parents[1] / "index.json"


def _relabel(case: CaseFiles, mapping: dict[int, int], out: Path) -> None:
    labels, geometry = read_label_map(case.label)
    table = np.zeros(256, np.uint8)
    for value, new in mapping.items():
        table[value] = new
    write_label_map(out, table[labels], geometry)


def our_run(given: Arguments, index: Path, dataset: Dataset, seed: int, steps: int | None = None) -> dict[str, Any]:
    """One training of ours, or what is left of it, and its scores; `steps` in place of the minutes where given."""
    folder = given.work / f"ours-{seed}-{f'{steps}steps' if steps else f'{given.minutes:g}min'}"
    settings = _settings(given, index, dataset, seed, steps)
    keep_recipe(folder, {"recipe": recipe_of(load_config(given.config, settings)), "data": _data(index)})
    done = folder / "scored.json"
    if done.is_file():
        return dict(json.loads(done.read_text()))
    train_model(given.config, folder, resume=True, stage="full", overrides=settings)
    scores = score(folder / "validation", dataset.of("validation")[0].label.parent, index, given.organs)
    row = {"seed": seed, "minutes": given.minutes, "steps": steps, "scores": scores}
    return _keep(done, row | {"mean_dice": mean_dice(scores, given.organs)})


def _settings(given: Arguments, index: Path, dataset: Dataset, seed: int, steps: int | None) -> dict[str, Any]:
    limit = {"index": index, "loop.seed": seed, "cache": given.work / "cache"}
    limit |= {"loop.max_steps": steps} if steps else {"loop.max_steps": 10**6, "loop.max_minutes": given.minutes}
    kept = [organ for organ in _open_ended(given.config) if organ in dataset.labels]
    own = {"open_ended": kept, "organ_weights": {}, "voxel_weights": {}}
    return own | limit | parse_settings(given.set_)


def _open_ended(config: str) -> tuple[str, ...]:
    return load_config(config).open_ended


def _keep(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    emit_json(path, found)
    return found


def their_runs(given: Arguments, dataset: Dataset) -> list[dict[str, Any]]:
    """nnU-Net on the same patients: plan, choose among memory targets, train every seed, segment, score."""
    place = given.work / "nnunet"
    raw = place / "raw" / f"Dataset{ID}_Same"
    keep_recipe(place, {"data": _data(_index_of(dataset))})
    _write_raw(raw, dataset)
    ways = list(product([_plan(given, place, gb) for gb in given.memory_targets], given.trainers))
    if len(ways) > 1:
        tried = {way: _their_run(given, place, dataset, way, 0, given.choose_minutes) for way in ways}
        ways.sort(key=lambda way: -tried[way]["mean_dice"])
        emit_json(place / "chosen.json", {" ".join(way): row["mean_dice"] for way, row in tried.items()})
    return [_their_run(given, place, dataset, ways[0], seed, given.minutes) for seed in given.seeds]


def _write_raw(raw: Path, dataset: Dataset) -> None:
    for case in dataset.cases:
        train = case.split == "train"
        link(raw / ("imagesTr" if train else "imagesTs") / f"{case.id}_0000.nii.gz", case.ct)
        link(raw / ("labelsTr" if train else "labelsTs") / f"{case.id}.nii.gz", case.label)
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0} | dataset.labels, "file_ending": ".nii.gz"}
    emit_json(raw / "dataset.json", about | {"numTraining": len(dataset.of("train"))})


def _environment(place: Path, results: str = "results") -> dict[str, str]:
    folders = {"raw": place / "raw", "preprocessed": place / "preprocessed", "results": place / results}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    quiet = {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "1"}
    return os.environ | {f"nnUNet_{name}": str(folder.resolve()) for name, folder in folders.items()} | quiet


def _call(given: Arguments, place: Path, *command: str, results: str = "results") -> None:
    assert given.nnunet is not None
    program = [str(given.nnunet / command[0]), *command[1:]]
    with (place / "log.txt").open("a") as log:
        done = subprocess.run(program, env=_environment(place, results), stdout=log, stderr=log, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: see {place / 'log.txt'}")


def _plan(given: Arguments, place: Path, gb: float) -> str:
    """nnU-Net's own fingerprint, plan and preprocessing for a memory target; returns the plan's name."""
    name, folder = f"nnUNetPlans{gb:g}GB".replace(".", "_"), place / "preprocessed" / f"Dataset{ID}_Same"
    if (folder / f"{name}.done").is_file():
        return name
    data = str(ID)
    _call(given, place, "nnUNetv2_extract_fingerprint", "-d", data, "-np", "1")
    target = ("-gpu_memory_target", str(gb), "-overwrite_plans_name", name)
    _call(given, place, "nnUNetv2_plan_experiment", "-d", data, *target)
    _call(given, place, "nnUNetv2_preprocess", "-d", data, "-plans_name", name, "-c", "3d_fullres", "-np", "1")
    shutil.copy(place / "raw" / folder.name / "dataset.json", folder / "dataset.json")
    cases = sorted(p.name.removesuffix(".nii.gz") for p in (place / "raw" / folder.name / "labelsTr").iterdir())
    # All patients train: the validation patients are ours alone. nnU-Net wants a fold, so one stands on both sides.
    emit_json(folder / "splits_final.json", [{"train": cases, "val": cases[:1]}])
    (folder / f"{name}.done").touch()
    return name


def _their_run(
    given: Arguments, place: Path, dataset: Dataset, way: tuple[str, str], seed: int, minutes: float
) -> dict[str, Any]:
    plan, trainer = way
    other = "" if trainer == PLAIN else f"-{trainer}"
    results = f"results-{plan}{other}-{seed}-{minutes:g}min{'-bf16' if given.bf16 else ''}"
    keep_recipe(place / results, {"data": _data(_index_of(dataset))})
    done = place / results / "scored.json"
    if done.is_file():
        return agreed(done, json.loads(done.read_text()), {"masks": given.masks})
    folder = place / "preprocessed" / f"Dataset{ID}_Same"
    few = ("--iterations", "2") if given.smoke else ()
    half = ("--bf16",) if given.bf16 else ()
    _call(
        given, place, "python", str(HERE / "nnunet_timed.py"), "--preprocessed", str(folder), "--plans", plan,
        "--trainer", trainer, "--minutes", str(minutes), "--seed", str(seed), *few, *half, results=results,
    )  # fmt: skip
    (state,) = (place / results).rglob("timed.json")
    masks = place / results / f"masks-{given.masks}"
    if given.masks == "nnunet":
        _predict(given, place, way, masks, results)
    else:
        _segment(state.parents[1], dataset, masks, faithful=given.masks == "faithful")
    scores = score(masks, dataset.of("validation")[0].label.parent, _index_of(dataset), given.organs)
    timed = json.loads(state.read_text())
    row = {"plan": plan, "trainer": trainer, "seed": seed, "masks": given.masks, "scores": scores} | timed
    return _keep(done, row | {"mean_dice": mean_dice(scores, given.organs)})


def _predict(given: Arguments, place: Path, way: tuple[str, str], masks: Path, results: str) -> None:
    """nnU-Net's own command on all validation patients."""
    images = place / "raw" / f"Dataset{ID}_Same" / "imagesTs"
    _call(
        given, place, "nnUNetv2_predict", "-i", str(images), "-o", str(masks), "-d", str(ID), "-p", way[0],
        "-tr", way[1].split("+")[0], "-c", "3d_fullres", "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1",
        *(("--disable_tta",) if given.smoke else ()), results=results,
    )  # fmt: skip


def _segment(model: Path, dataset: Dataset, masks: Path, *, faithful: bool) -> None:
    """By our engine: windows and mirror images as nnU-Net's or our default, nothing of ours about the anatomy."""
    shelf = masks.parent / "imported" / masks.name
    shutil.rmtree(shelf, ignore_errors=True)  # of a start that was killed while it segmented
    package = import_models([model], shelf, "as-nnunet", folds=["0"], faithful=faithful)
    scans = [str(case.ct) for case in dataset.of("validation")]
    command = [sys.executable, "-m", "medseg", "segment", *scans, "--model", str(package), "-o", str(masks)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
