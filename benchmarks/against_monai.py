"""Our engine against MONAI's sliding window: the same network, window, overlap and scan, in turns.

`python benchmarks/against_monai.py CT -o benchmarks/results/against_monai.json` prepares one CT for the shipped model
and lets both label it on the model's grid: MONAI's `SlidingWindowInferer` (Gaussian) with PyTorch eager in fp32 and
argmax, and ours with every way to run the model here: only where the body is, and in every window of MONAI's
(`StreamingInferer`). Seconds per round, ratios, and the share of equal labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from monai.inferers import SlidingWindowInferer

import medseg
from medseg.imaging.emit import emit_json
from medseg.imaging.volume import Array
from medseg.inference.backends.build import BACKENDS, candidates_of
from medseg.inference.backends.predictor import Candidate, Predictor
from medseg.inference.backends.torch_backend import load_network
from medseg.inference.inferer import StreamingInferer
from medseg.inference.predict import predict_blocks
from medseg.models.card import InputSpec
from medseg.models.store import load_model
from medseg.preprocess.blocks import label_grid
from medseg.preprocess.prepare import prepare
from medseg.runtime.provenance import machine, versions


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    ct: Annotated[Path, tyro.conf.Positional]
    """Any CT that `medseg segment` takes."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """JSON file of the result."""
    model: str = "head-neck-oar"
    """Name of the model."""
    rounds: int = 5
    """How often each is run, in turns."""


def by_monai(image: Array, network: torch.nn.Module, inferer: SlidingWindowInferer) -> Array:
    """Labels by MONAI and PyTorch eager, as its bundles run it."""
    with torch.inference_mode():
        return inferer(torch.from_numpy(image)[None, None], network).argmax(1)[0].numpy()


def by_us(image: Array, predictor: Predictor, spec: InputSpec) -> Array:
    """Labels by our engine, on the model's grid."""
    return label_grid(predict_blocks(predictor, image, spec), image.shape)


def main() -> None:
    """Measure and write."""
    asked = tyro.cli(Arguments, description=__doc__)
    package, volume = load_model(asked.model), medseg.read_volume(asked.ct)
    spec = package.card.input
    assert spec is not None
    image = prepare(volume, spec.spacing_mm, spec.window_hu).image
    inferer = SlidingWindowInferer(spec.patch_size, 1, spec.overlap_ratio, mode="gaussian", cval=-1.0)
    network = load_network(package).to(memory_format=torch.contiguous_format)
    ways: dict[str, Callable[[], Array]] = {"MONAI, PyTorch eager fp32": lambda: by_monai(image, network, inferer)}
    every = StreamingInferer(spec.patch_size, spec.overlap_ratio, cval=-1.0)
    tensor = torch.from_numpy(image)[None, None]
    for one in sorted({*candidates_of(package), Candidate("torch", "fp32")}):
        predictor = BACKENDS[one.backend](package, one.precision)
        ways[str(one)] = lambda predictor=predictor: by_us(image, predictor, spec)
        ways[f"{one}, every window"] = lambda predictor=predictor: every(tensor, predictor)[0, 0].numpy()
    report = compare(ways, asked.rounds)
    facts = {"scan": list(volume.hu.shape), "grid": list(image.shape), "versions": versions(), "machine": machine()}
    emit_json(asked.out, {"ways": report} | facts)


def compare(ways: dict[str, Callable[[], Array]], rounds: int) -> dict[str, dict]:
    """Every way once to warm up, then in turns; the first is what the others are compared with."""
    labels = {name: run() for name, run in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[name].append(round(time.perf_counter() - began, 3))
    first = next(iter(ways))
    report = {}
    for name in ways:
        ratios = [base / own for base, own in zip(seconds[first], seconds[name], strict=True)]
        equal = float((labels[name] == labels[first]).mean())
        report[name] = {"seconds": seconds[name], "times_faster": [round(min(ratios), 2), round(max(ratios), 2)]}
        report[name] |= {"median_times_faster": round(float(np.median(ratios)), 2), "equal_labels": round(equal, 6)}
        print(name, report[name], flush=True)
    return report


if __name__ == "__main__":
    main()
