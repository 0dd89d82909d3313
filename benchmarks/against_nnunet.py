"""The same nnU-Net weights on the same scans: `nnUNetv2_predict_from_modelfolder` and `medseg segment`, side by side.

Each run is a fresh process, files in to files out; the tools take turns. Wall time, CPU time, peak memory of the
process tree (proportional set size, sampled), Dice between the two masks and, where references are given, of each
against them. nnU-Net comes from an environment of its own:
`python benchmarks/against_nnunet.py MODEL CT... --nnunet BIN -o OUT.json`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import tyro

from medseg.imaging.emit import emit_json
from medseg.imaging.nifti import read_label_map
from medseg.imaging.volume import Array
from medseg.models.importers.run import import_models
from medseg.models.store import load_model
from medseg.runtime.provenance import machine, versions

SAMPLE_SECONDS = 0.2
ENOUGH_VOXELS = 200
QUICK = ("--disable_tta",)


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    model: Annotated[Path, tyro.conf.Positional]
    """nnU-Net model folder (plans.json)."""
    scans: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """CTs as .nii.gz."""
    nnunet: Path
    """bin folder of the environment that holds nnU-Net."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """JSON file of the result."""
    references: Path | None = None
    """Folder of label maps with the model's own values, named as the scans."""
    fold: str = "all"
    """The fold that both use."""
    repeats: int = 1
    """Runs of each."""
    quick: bool = False
    """nnU-Net without mirror images, too."""
    faithful: bool = True
    """Ours with nnU-Net's own windows and mirror images, too."""
    more: tuple[Path, ...] = ()
    """Scans that only medseg segments, in one call with the others: seconds a volume."""


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall and CPU, peak MiB, and the masks by scan."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    masks: list[Array]


def measure(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MiB of a command and all its children."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=os.environ | (environment or {}))
        cpu_seconds, peak_mb = watch(process)
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            sys.exit(f"{command[0]} failed:\n{said.read().decode()[-2000:]}")
    return seconds, cpu_seconds, peak_mb


def watch(process: psutil.Popen) -> tuple[float, float]:
    """CPU seconds and peak MiB of a process and its children, until it ends."""
    peak, cpu, began = 0.0, {}, time.perf_counter()
    while process.poll() is None:
        memory = 0.0
        for part in tree(process):
            try:
                memory += part.memory_full_info().pss / 2**20
                times = part.cpu_times()
                cpu[part.pid] = times.user + times.system
            except psutil.Error:
                continue
        peak = max(peak, memory)
        # Looking costs time itself: less often in a long run.
        time.sleep(max(SAMPLE_SECONDS, (time.perf_counter() - began) / 100))
    return sum(cpu.values()), peak


def tree(process: psutil.Process) -> Iterator[psutil.Process]:
    """The process and what it started."""
    yield process
    try:
        yield from process.children(recursive=True)
    except psutil.Error:
        return


def run_nnunet(asked: Arguments, work: Path, options: tuple[str, ...]) -> Run:
    """nnU-Net's own command on all scans."""
    given, out = work / "given", work / "nnunet"
    given.mkdir(exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    for scan in asked.scans:
        shutil.copy(scan, given / f"{stem(scan)}_0000.nii.gz")
    command = [str(asked.nnunet / "nnUNetv2_predict_from_modelfolder"), "-i", str(given), "-o", str(out)]
    command += ["-m", str(asked.model), "-f", asked.fold, "-device", "cpu", *options]
    folders = {name: str(work) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    figures = measure(command, folders)
    return Run(*figures, [read_label_map(out / f"{stem(scan)}.nii.gz")[0] for scan in asked.scans])


def run_medseg(scans: Sequence[Path], work: Path, package: Path) -> Run:
    """Our command on scans."""
    out = work / "medseg"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "medseg", "segment", *map(str, scans), "-o", str(out), "--model", str(package)]
    figures = measure(command)
    return Run(*figures, [read_label_map(out / stem(scan) / "mask.nii.gz")[0] for scan in scans])


def stem(scan: Path) -> str:
    """The scan's name without extension."""
    return scan.name.removesuffix(".nii.gz")


def dice(a: Array, b: Array, organs: dict[str, int]) -> dict[str, float]:
    """Dice of every organ with more than a few voxels in either mask."""
    found = {}
    for organ, value in organs.items():
        one, other = a == value, b == value
        total = np.count_nonzero(one) + np.count_nonzero(other)
        if total > 2 * ENOUGH_VOXELS:
            found[organ] = round(float(2 * np.count_nonzero(one & other) / total), 4)
    return found


def compare(asked: Arguments, ours: Run, theirs: Run, organs: dict[str, int]) -> list[dict[str, Any]]:
    """Per scan: agreement, and both against the reference."""
    rows = []
    for scan, a, b in zip(asked.scans, ours.masks, theirs.masks, strict=True):
        row: dict[str, Any] = {"scan": stem(scan), "shape": list(a.shape), "agreement": dice(a, b, organs)}
        if asked.references is not None:
            reference = read_label_map(asked.references / scan.name)[0]
            row |= {"medseg": dice(a, reference, organs), "nnunet": dice(b, reference, organs)}
        rows.append(row)
    return rows


def imported(asked: Arguments, work: Path, *, faithful: bool) -> Path:
    """The model as a package here, its backends measured once and remembered."""
    package = import_models(
        [asked.model], work, "as-nnunet" if faithful else "default", folds=[asked.fold], faithful=faithful
    )
    run_medseg(asked.scans[:1], work, package)
    return package


def side_by_side(asked: Arguments, work: Path, packages: dict[str, Path], options: tuple[str, ...]) -> dict[str, Any]:
    """nnU-Net and ours with each package in turns, `repeats` times."""
    theirs: list[Run] = []
    ours: dict[str, list[Run]] = {name: [] for name in packages}
    for _ in range(asked.repeats):
        for name, package in packages.items():
            ours[name].append(run_medseg(asked.scans, work, package))
        theirs.append(run_nnunet(asked, work, options))
    about = {"options": " ".join(options) or "default", "volumes": len(asked.scans)}
    result: dict[str, Any] = {"nnunet": about | figures(theirs)}
    for name, package in packages.items():
        organs = load_model(package).card.label_table.names
        times = np.median([run.seconds for run in theirs]) / np.median([run.seconds for run in ours[name]])
        share = theirs[-1].peak_mb and ours[name][-1].peak_mb / theirs[-1].peak_mb
        row = figures(ours[name]) | {"times_faster": round(float(times), 2), "share_of_memory": round(share, 3)}
        result[f"medseg {name}"] = row | {"scans": compare(asked, ours[name][-1], theirs[-1], organs)}
    for name, row in result.items():
        print(name, row, flush=True)
    return result


def figures(runs: list[Run]) -> dict[str, Any]:
    """Seconds of every run, CPU seconds and peak memory of the last."""
    return {
        "seconds": [round(run.seconds, 2) for run in runs],
        "cpu_seconds": round(runs[-1].cpu_seconds, 1),
        "peak_mb": round(runs[-1].peak_mb),
    }


def many(asked: Arguments, work: Path, package: Path) -> dict[str, Any]:
    """Ours over all scans in one call: seconds a volume, and Dice against the references."""
    scans = (*asked.scans, *asked.more)
    run = run_medseg(scans, work, package)
    row = figures([run]) | {"volumes": len(scans), "seconds_a_volume": round(run.seconds / len(scans), 2)}
    if asked.references is not None:
        organs = load_model(package).card.label_table.names
        masks = zip(scans, run.masks, strict=True)
        found = [dice(mask, read_label_map(asked.references / scan.name)[0], organs) for scan, mask in masks]
        row["dice"] = {organ: round(float(np.mean([f[organ] for f in found if organ in f])), 4) for organ in organs}
    print("many", row, flush=True)
    return row


def main() -> None:
    """Measure and write."""
    asked = tyro.cli(Arguments, description=__doc__)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        packages = {"as nnU-Net": imported(asked, work, faithful=True)} if asked.faithful else {}
        packages["default"] = imported(asked, work, faithful=False)
        content: dict[str, Any] = {"many": many(asked, work, packages["default"])} if asked.more else {}
        content["default"] = side_by_side(asked, work, packages, ())
        if asked.quick:
            content["quick"] = side_by_side(asked, work, {"default": packages["default"]}, QUICK)
    theirs = subprocess.run(
        [str(asked.nnunet / "python"), "-m", "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = ("nnunetv2==", "torch==", "dynamic_network_architectures==", "numpy==")
    peers = [line for line in theirs.stdout.splitlines() if line.startswith(wanted)]
    emit_json(asked.out, content | {"peers": peers, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
