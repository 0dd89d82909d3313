"""The specification's "optimised" network against a tuned plain 3-D U-Net of the same width, one change a row.

`PYTHONPATH=. python benchmarks/ablation.py --config head-neck-oar --work WORK --steps 900 -o OUT.json`

Every row trains with equally many steps, which mean the same on every machine, the same seeds, patch and overlap (but
for the rows that change these), and is scored on the validation patients; the plain network is tuned first over
`--rates`, and its best rate is everybody's. Rows that save memory and compute the same are not trained again.
Memory and time are measured `--rounds` times, on the GPU where there is one; they belong to the machine. OUT holds
every training's scores: a killed run goes on with the same command, on another machine too; another recipe or other
data are refused. `--no-train` measures memory and time alone. `--smoke` tries all of it on computed bodies.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from benchmarks.recipe import agreed, data_of, keep_recipe, recipe_of
from medseg.evaluation.paired import compare, mean_dice, score
from medseg.imaging.emit import emit_json
from medseg.networks.catalogue import build_network
from medseg.runtime.heap import give_back_at_once
from medseg.runtime.provenance import machine, versions
from medseg.training.average import start_average
from medseg.training.cases import read_index
from medseg.training.config import TrainConfig, load_config, parse_settings
from medseg.training.foreign import locate
from medseg.training.journal import read_journal
from medseg.training.run import train_model

PLAIN: dict[str, Any] = {"residual": False, "attention": False, "deep_supervision": 0, "recompute": 0}
PLAIN_TRAINING: dict[str, Any] = {
    "foreground_share": 0.0,
    "overlap_ratio": 0.0,
    "loop.precision": "fp32",
    "loop.ema_decay": None,
    "loop.spare_memory": False,
}
# Row -> options of the network, settings of the training: what it changes in the plain one.
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "attention": ({"attention": True}, {}),
    "deep supervision": ({"deep_supervision": 2}, {}),
    "residual": ({"residual": True}, {}),
    "sampling": ({}, {"foreground_share": 0.75}),
    "overlap": ({}, {"overlap_ratio": 0.3}),
    "half precision": ({}, {"loop.precision": "bf16"}),
    "average": ({}, {"loop.ema_decay": 0.998}),
    "recomputed level": ({"recompute": 1}, {}),
    "memory given back": ({}, {"loop.spare_memory": True}),
}
# The same values by another way: what they change are time and memory.
SAME_VALUES = ("recomputed level", "memory given back")


def _all_together(*without: str) -> tuple[dict[str, Any], dict[str, Any]]:
    options: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for own, training in (change for name, change in ROWS.items() if name not in without):
        options |= own
        settings |= training
    return options, settings


ROWS |= {"all": _all_together(), "all but attention": _all_together("attention")}


@dataclass(frozen=True)
class Arguments:
    """What to compare."""

    work: Path
    """Folder for runs; the same command goes on in it."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """JSON file of the result, gone on with where it exists."""
    config: str = "head-neck-oar"
    """Config or preset: data, width, patch."""
    steps: int = 900
    """Of every training."""
    seeds: tuple[int, ...] = (0, 1)
    """One run of each row a seed."""
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3, 4e-3)
    """Learning rates that the plain network is tuned over, with half the steps."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which rows; `plain` is always needed."""
    train: bool = True
    """Without: memory and times alone, in minutes."""
    rounds: int = 3
    """Of measuring memory and times, all rows in turn; 0 leaves them as OUT has them."""
    set_: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Further settings of all rows, KEY=VALUE."""
    smoke: bool = False
    """Computed bodies and a handful of steps."""


def main(given: Arguments) -> dict[str, Any]:
    """Train, score, measure, compare, write."""
    given = _smoke(given) if given.smoke else given
    config = load_config(given.config, parse_settings(given.set_))
    found = _begun(given, config)
    if given.train:
        _train(given, config, found)
    if given.rounds:
        found["costs"] = [{name: measured(config, name) for name in given.rows} for _ in range(given.rounds)]
        found["machine"] = machine()
    _write(given, found)
    print(json.dumps(found["rows"], indent=2))
    return found


def _begun(given: Arguments, config: TrainConfig) -> dict[str, Any]:
    """What OUT holds, if it was trained on the same data; costs need none."""
    none = {"machine": machine(), "versions": versions(), "trainings": {}, "costs": []}
    before = json.loads(given.out.read_text()) if given.out.is_file() else none
    return agreed(given.out, before, {"data": _data(config)} if given.train else {})


def _train(given: Arguments, config: TrainConfig, found: dict[str, Any]) -> None:
    """Tune the plain network, then train every row; OUT is written after each."""
    found |= {"steps": given.steps, "seeds": given.seeds, "rate": _tuned(given, config, found)}
    for seed, name in product(given.seeds, given.rows):
        if name not in SAME_VALUES:
            _run(given, config, found, name, seed, found["rate"], given.steps)
            _write(given, found)


def _write(given: Arguments, found: dict[str, Any]) -> None:
    """OUT, with a row for whatever is trained with all seeds, or measured."""
    rows = {name: _scored(found, name) | _costs(found["costs"], name) for name in ROWS}
    found["rows"] = {name: row for name, row in rows.items() if row}
    emit_json(given.out, found)


def _smoke(given: Arguments) -> Arguments:
    own = ("loop.warmup_steps=1", "loop.workers=0", "loop.validate_steps=0", "phantoms.train=3")
    few = {"seeds": (0,), "rates": (1e-2,), "rows": ("plain", "attention", "all"), "rounds": 1, "steps": 6}
    return replace(given, config="smoke", set_=(*own, *given.set_), **few)


def options_of(config: TrainConfig, name: str) -> dict[str, Any]:
    """The network's options in a row: the config's width and norm, and what the row says."""
    kept = {key: value for key, value in config.network.options.items() if key not in PLAIN}
    levels = len(kept.get("channels", ())) or 5
    options = kept | PLAIN | ROWS[name][0]
    options["deep_supervision"] = min(options["deep_supervision"], levels - 1)
    return options


def settings_of(name: str) -> dict[str, Any]:
    """The training's settings in a row."""
    return PLAIN_TRAINING | ROWS[name][1]


def _tuned(given: Arguments, config: TrainConfig, found: dict[str, Any]) -> float:
    """The rate with which the plain network scores best in half the steps."""
    if len(given.rates) == 1:
        return given.rates[0]
    tried = {rate: _run(given, config, found, "plain", given.seeds[0], rate, given.steps // 2) for rate in given.rates}
    return max(tried, key=lambda rate: float(tried[rate]["mean_dice"]))


def _run(
    given: Arguments, config: TrainConfig, found: dict[str, Any], row: str, seed: int, rate: float, steps: int
) -> dict[str, Any]:
    """A training, from OUT, or what is left of it; its scores, and what a step took here."""
    name = _name(row, seed, rate, steps)
    own: dict[str, Any] = {"network.options": options_of(config, row), "loop.learning_rate": rate, "loop.seed": seed}
    own |= {"loop.max_steps": steps, "cache": given.work / "cache"}
    settings = parse_settings(given.set_) | settings_of(row) | own
    recipe = recipe_of(load_config(given.config, settings))
    if name in found["trainings"]:
        return agreed(given.out, found["trainings"][name], {"recipe": recipe})
    folder = given.work / name
    keep_recipe(folder, {"recipe": recipe, "data": found["data"]})
    train_model(given.config, folder, resume=True, stage="full", overrides=settings)
    found["trainings"][name] = {"recipe": recipe} | _result(config, folder)
    return dict(found["trainings"][name])


def _name(row: str, seed: int, rate: float, steps: int) -> str:
    return f"{row.replace(' ', '-')}-{seed}-{rate:g}-{steps}steps"


def _result(config: TrainConfig, folder: Path) -> dict[str, Any]:
    index = folder / "data" / "index.json" if config.index is None else locate(config.index)[0]
    dataset = read_index(index)
    organs = list(dataset.labels)
    scores = score(folder / "validation", dataset.of("validation")[0].label.parent, index, organs)
    seconds = [row["seconds_per_step"] for row in read_journal(folder) if "seconds_per_step" in row]
    patients = {case.id: case.patient for case in dataset.of("validation")}
    found = {"organs": organs, "scores": scores, "mean_dice": mean_dice(scores, organs), "patients": patients}
    return found | {"seconds_per_step": round(statistics.median(seconds), 3) if seconds else None}


def _data(config: TrainConfig) -> dict[str, Any]:
    """Which cases: of computed bodies the config says all."""
    return {} if config.index is None else data_of(read_index(locate(config.index)[0]))


def _scored(found: dict[str, Any], name: str) -> dict[str, Any]:
    """The row against the plain one; nothing before both are trained with all seeds."""
    if "rate" not in found:
        return {}
    ours, plain = (
        [found["trainings"].get(_name(row, seed, found["rate"], found["steps"])) for seed in found["seeds"]]
        for row in (name, "plain")
    )
    if not (all(ours) and all(plain)):
        return {}
    scores = [[run["scores"] for run in runs] for runs in (ours, plain)]
    organs = ours[0]["organs"]
    means = {organ: statistics.fmean(mean_dice(run, [organ]) for run in scores[0]) for organ in organs}
    return {"against_plain": compare(*scores, organs, ours[0]["patients"]), "organs": means}


def _costs(rounds: list[dict[str, dict[str, float]]], name: str) -> dict[str, Any]:
    """What the row took in every round, and as a share of what the plain one took in the same: least, middle, most."""
    if not rounds or name not in rounds[0]:
        return {}
    taken = {key: [one[name][key] for one in rounds] for key in rounds[0][name]}
    shares = {key: sorted(one[name][key] / one["plain"][key] for one in rounds) for key in taken}
    spread = {key: [round(f(all_), 3) for f in (min, statistics.median, max)] for key, all_ in shares.items()}
    return {"cost": taken, "cost_share": spread}


def measured(config: TrainConfig, name: str) -> dict[str, float]:
    """Memory and time of a row's training, and time of its inference: on a CPU, each in a fresh process."""
    row = (options_of(config, name), settings_of(name), config.patch_size)
    apart = _called if torch.cuda.is_available() else _in_process
    return apart(_training_cost, *row) | apart(_window_cost, *row)


def _built(options: dict[str, Any], settings: dict[str, Any]) -> tuple[torch.nn.Module, Any, torch.device]:
    """The network laid out as in training, its precision, and where it is."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network("Optimized3DUNet", options | {"out_channels": 8})
    network = network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    half = torch.autocast(device.type, torch.bfloat16, enabled=settings["loop.precision"] == "bf16")
    return network, half, device


def _training_cost(options: dict[str, Any], settings: dict[str, Any], patch: tuple[int, int, int]) -> dict[str, float]:
    """Peak memory and seconds of a step, the median but for the first (a GPU's first three)."""
    network, half, device = _built(options, settings)
    if settings["loop.spare_memory"] and not give_back_at_once():
        raise SystemExit("The row `memory given back` needs glibc.")
    before = _peak_mb(device, anew=True)
    average = None if settings["loop.ema_decay"] is None else start_average(network)  # noqa: F841 - held, as training does
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    image = torch.randn(2, 1, *patch, device=device).to(memory_format=torch.channels_last_3d)

    def step() -> None:
        with half:
            outputs = network(image)
            heads = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            loss = sum(head.float().square().mean() for head in heads)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    seconds = _seconds(step, device)
    return {"training_mb": round(max(0.1, _peak_mb(device) - before), 1), "step_s": seconds}


def _window_cost(options: dict[str, Any], settings: dict[str, Any], patch: tuple[int, int, int]) -> dict[str, float]:
    """Seconds of one window, the median but for the first (a GPU's first three)."""
    network, half, device = _built(options, settings)
    image = torch.randn(1, 1, *patch, device=device).to(memory_format=torch.channels_last_3d)
    network.eval()
    with torch.inference_mode(), half:
        return {"window_s": _seconds(lambda: network(image), device)}


def _seconds(act: Callable[[], object], device: torch.device) -> float:
    """A CPU's first time warms up; a GPU chooses its ways in the first few, and is quick enough for twenty."""
    on_gpu = device.type == "cuda"
    taken = []
    for _ in range(23 if on_gpu else 5):
        began = time.perf_counter()
        act()
        if on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return round(statistics.median(taken[3 if on_gpu else 1 :]), 5)


def _peak_mb(device: torch.device, *, anew: bool = False) -> float:
    """The largest memory so far: the GPU's tensors, or what is resident. `anew` forgets what went before (imports).

    On a GPU what lies there already counts: that is the network, which a CPU has in memory before it is asked, too.
    """
    if device.type == "cuda":
        if anew:
            torch.cuda.reset_peak_memory_stats()
            return 0.0
        return torch.cuda.max_memory_allocated() / 2**20
    if anew:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _called(act: Any, *given: Any) -> Any:
    """Here: a GPU's peak is set to nothing before, and what went before is let go."""
    gc.collect()
    torch.cuda.empty_cache()
    return act(*given)


def _in_process(act: Any, *given: Any) -> Any:
    """In a fresh process, whose peak is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(act, given)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
