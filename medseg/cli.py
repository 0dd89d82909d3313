"""The `medseg` command: segment, models, export, deidentify, evaluate, train ... Thin: parse, call, exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from medseg.runtime.command import Commands, run_commands

Out = Annotated[Path, arg(aliases=["-o"])]
Backend = Literal["auto", "torch", "onnxruntime", "openvino", "tensorrt"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]


def segment(
    paths: Positional[tuple[Path, ...]],
    /,
    out: Out,
    model: str = "head-neck-oar",
    series: str | None = None,
    force: bool = False,
    workers: int = 1,
    backend: Backend | None = None,
    precision: Precision = "auto",
    max_memory: str | None = None,
    localiser: str | None = None,
    accept: str | None = None,
    formats: Annotated[str, arg(name="format", metavar="NAME,NAME")] = "nifti,csv",
) -> int:
    """Segment CT scans: named organs, their volumes, a mask on the scan's own grid.

    Writes one folder per study under OUT with mask.nii.gz, labels.json, measurements.csv
    and .json, preview.png and run.json, and a manifest of all studies beside them.
    Finished and unchanged studies are not computed again.

    Exit codes: 0 all fine, 3 some studies failed, 1 all failed or nothing to do.

    Args:
        paths: NIfTI, NRRD or MHA files, DICOM folders, zips of one, or folders of studies.
        out: Folder for the results.
        model: Name of an installed model (see `medseg models`) or folder of a package.
        series: Number or UID of the CT series, where a folder holds several.
        force: Compute again what is already finished.
        workers: Studies at the same time; each takes memory of its own.
        backend: What runs the network. `auto` ($MEDSEG_BACKEND, if set, instead) measures what is installed once
            per machine and model, and takes the fastest.
        precision: Of the network's arithmetic; `auto` takes what is fastest here.
        max_memory: What a process may take, e.g. 4GB: the work is cut to keep it, or refused by name.
        localiser: A quick model that names some of the same organs: it looks where they are, and MODEL works only
            there (a coarse model before a fine one of a long scan).
        accept: A reason to go on with scans that are no CT or hold no Hounsfield units. It stands in the findings and
            the run report. Damaged files and contradicting geometry stay refused.
        formats: Further files beside these: dicom-seg, dicom-seg-labelmap, rtstruct (of DICOM scans), stl, glb,
            seg.nrrd (3D Slicer), report-html, report-pdf. Needs medseg[exports].
    """
    from medseg.exports import parse_formats
    from medseg.jobs.console import run_and_report
    from medseg.runtime.options import Options

    return run_and_report(
        paths,
        out,
        model=model,
        series=series,
        force=force,
        workers=workers,
        options=Options.asked(backend, precision, max_memory, localiser, accept),
        formats=parse_formats(formats),
    )


def models(name: Positional[str | None] = None, /, json: bool = False) -> int:
    """List the installed models, or show the card of one.

    Args:
        name: Show this model's card: organs, scores, intended use, limits.
        json: Print the card or the list as JSON, for programs.
    """
    from medseg.models.console import print_card, print_models

    return print_card(name, as_json=json) if name else print_models(as_json=json)


def import_model(
    paths: Positional[tuple[Path, ...]],
    /,
    name: str,
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    folds: tuple[str, ...] = (),
    orientation: str | None = None,
    faithful: bool = False,
    labels: Path | None = None,
    licence: str | None = None,
    version: str = "1.0.0",
) -> int:
    """Take over a model of nnU-Net v2 or a MONAI bundle (`medseg models import` is the same command).

    Weights are read without running anything that the files hold. The package is written to OUT/NAME;
    `medseg segment ... --model OUT/NAME` uses it.

    Args:
        paths: An nnU-Net model folder (plans.json) or a MONAI bundle (configs/metadata.json). Several of one
            spacing and window become one model that knows the organs of all.
        name: Name of the model here.
        out: Shelf that gets the package; the first folder of $MEDSEG_MODELS if not given.
        folds: Folds of nnU-Net to average, e.g. 0 1; all that are there if not given.
        orientation: Order of the axes (i, j, k) in the files that nnU-Net was trained on, e.g. RAS; LPS if not
            given. For a bundle: the order that its network saw, where it does not say so itself.
        faithful: Windows and mirror images as nnU-Net runs them by default: the same mask, several times slower.
        labels: JSON {organ: value} that numbers the organs of several models.
        licence: Under which the weights may be used; stands in the model card.
        version: Of the package.
    """
    from medseg.models.importers.console import import_and_report

    return import_and_report(
        paths,
        out,
        name,
        folds=folds,
        orientation=orientation,
        faithful=faithful,
        labels=labels,
        licence=licence,
        version=version,
    )


def register_model(package: Positional[Path], /, out: Annotated[Path | None, arg(aliases=["-o"])] = None) -> int:
    """Copy a finished package to a shelf as NAME@VERSION (`medseg models register` is the same command).

    What `--model NAME` means stays as it is until `medseg models promote`.

    Args:
        package: Folder of a package, e.g. RUN/package.
        out: The shelf; the first folder of $MEDSEG_MODELS if not given.
    """
    from medseg.models.console import change_versions

    return change_versions("register", str(package), out)


def promote_model(model: Positional[str], /, out: Annotated[Path | None, arg(aliases=["-o"])] = None) -> int:
    """Let `--model NAME` mean this version from now on (`medseg models promote` is the same command).

    Args:
        model: NAME@VERSION.
        out: The shelf; the first folder of $MEDSEG_MODELS if not given.
    """
    from medseg.models.console import change_versions

    return change_versions("promote", model, out)


def roll_back_model(name: Positional[str], /, out: Annotated[Path | None, arg(aliases=["-o"])] = None) -> int:
    """Take the last promotion back (`medseg models rollback` is the same command).

    Args:
        name: Of the model, without a version.
        out: The shelf; the first folder of $MEDSEG_MODELS if not given.
    """
    from medseg.models.console import change_versions

    return change_versions("rollback", name, out)


def export(
    model: Positional[str],
    /,
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    int8: bool = False,
    share: bool = False,
    calibrate: Path | None = None,
    references: Path | None = None,
) -> int:
    """Export a model to ONNX, and to int8, which is the fastest on a CPU.

    Writes a copy of the model package with model.onnx (float32, any batch, the model's window; spacing,
    HU window, labels and version stand in its metadata) and, with --int8, model.int8.onnx (a quarter of the
    size). A variant enters only through the parity gate: its masks have to be those of the float32
    network, organ by organ, on scans that calibration has not seen; the figures stand in the card.
    Use the copy as any model: `medseg segment CT -o OUT --model FOLDER`. Needs medseg[deploy].

    Examples:
        medseg export head-neck-oar -o export
        medseg export head-neck-oar -o export --int8 --calibrate scans/ --references scans/

    Exit codes: 0 all fine, 3 exported, but int8 did not pass the gate.

    Args:
        model: Name of an installed model (see `medseg models`) or folder of a package.
        out: New folder for the package; NAME-VERSION-export here if not given.
        int8: Also quantise to 8 bits (a minute for a few scans, more for large models).
        share: With --int8, tie the kernels of deep layers in groups of four by likeness, and let the network learn
            for two minutes from the one before: about a tenth of the size of fp32 in place of a quarter, as fast,
            and up to 1.2 points of Dice lost.
        calibrate: Folder of CT scans as the model will see them, ten or more; every second one calibrates,
            the others judge, at most twelve each.
        references: Folder of label maps (ID_label.nii.gz for ID_ct.nii.gz) of these scans: then the loss of Dice
            against them counts too.
    """
    from medseg.deploy.console import export_and_report

    return export_and_report(model, out, int8=int8, share=share, calibrate=calibrate, references=references)


def evaluate(
    predictions: Positional[Path],
    references: Positional[Path],
    /,
    out: Out,
    index: Path | None = None,
    organs: tuple[str, ...] = (),
    within_contoured: tuple[str, ...] | None = None,
    margin_slices: int = 1,
    tolerance_mm: float = 5.0,
) -> int:
    """Score masks against references: Dice, surface Dice, HD95, misses counted apart.

    Writes scores.csv (a row per case and organ), scores.json and plot.png into OUT.

    Args:
        predictions: Results of `medseg segment`, a folder of label maps, or one file.
        references: Folder of reference label maps (ID_label.nii.gz or ID.nii.gz), or one file.
        out: Folder for the scores.
        index: JSON with the label table and, per case, which organs were contoured; if not given, it is
            looked for beside the references.
        organs: Score only these organs.
        within_contoured: Judge these organs only between their first and last contoured slice; the plain
            figure stands beside. If not given: spinal cord and esophagus, where there are such.
        margin_slices: Slices added to both ends of that range.
        tolerance_mm: Distance that surface Dice forgives.
    """
    from medseg.evaluation import evaluate as score

    card = score(
        predictions,
        references,
        out,
        index=index,
        organs=organs or None,
        within_contoured=within_contoured,
        margin_slices=margin_slices,
        tolerance_mm=tolerance_mm,
    )
    Console().print(card.table())
    print(f"Scores: {out}")
    return 0


def deidentify(study: Positional[Path], /, out: Out) -> int:
    """Write a de-identified copy of a DICOM folder (PS3.15 basic profile); pixels are left as they are.

    Args:
        study: DICOM folder.
        out: Folder for the copies, which are numbered.
    """
    from medseg.imaging.deidentify import deidentify_folder

    for finding in deidentify_folder(study, out):
        print(f"Note: {finding}")
    print(f"De-identified copy: {out}")
    return 0


def train(
    config: Positional[str],
    /,
    out: Out,
    max_steps: int | None = None,
    seed: int | None = None,
    index: Path | None = None,
    resume: bool = False,
    stage: Literal["both", "small", "full"] = "both",
    folds: int | None = None,
    fold: int | None = None,
    set_: Annotated[tuple[str, ...], arg(name="set")] = (),
) -> int:
    """Train a model from one config and put the finished package into OUT/package.

    `medseg train smoke -o RUN` needs no data and takes a minute; `medseg train head-neck-oar -o RUN` reproduces the
    shipped model. First comes the small-batch validation, some minutes that try everything the full training needs and
    forecast when it ends; the full training starts when that was sound. A run that was killed goes on with --resume and
    ends with the same weights. Several processes or machines: `torchrun --nproc-per-node N -m medseg train ...`.

    Args:
        config: A YAML file or the name of a preset.
        out: Run folder: checkpoint, log, package.
        max_steps: Optimiser steps of the whole run, resumed parts included; in place of the config's.
        seed: In place of the config's.
        index: The dataset, in place of the config's: our index.json, an nnU-Net v2 dataset folder, an MSD or MONAI
            dataset.json, or a folder of DICOM studies (folders or zips) with RTSTRUCT or SEG.
        resume: Go on from the run folder's checkpoint; start where there is none.
        stage: `small` for the small-batch validation alone, `full` for the full training without it.
        folds: Cross-validation: in how many folds the cases are parted, whatever split the dataset has.
        fold: The fold that validates, from 0 on; one run a fold.
        set_: Further settings in place of the config's, e.g. loop.learning_rate=1e-3 batch_size=4.
    """
    from medseg.training.config import parse_settings
    from medseg.training.run import train_model

    named = {"loop.max_steps": max_steps, "loop.seed": seed, "index": index, "folds.count": folds, "folds.number": fold}
    package = train_model(config, out, resume=resume, stage=stage, overrides=parse_settings(set_) | named)
    if package is not None:
        print(f"Model package: {package}")
    return 0


def check_data(dataset: Positional[Path], /, out: Out, pictures: int = 12) -> int:
    """Look for faults in a dataset before an hour is spent (`medseg train check` is the same command).

    Grids of scan and mask, labels without a name, empty masks, the same scan twice, left and right, orientation, HU.
    Writes report.html with pictures and check.json into OUT.

    Exit codes: 0 no errors (there may be warnings), 3 errors.

    Args:
        dataset: Our index.json, an nnU-Net v2 dataset folder, an MSD or MONAI dataset.json, or a folder of DICOM
            studies (folders or zips) with RTSTRUCT or SEG.
        out: Folder for the report.
        pictures: Cases that are drawn, those with faults first.
    """
    from medseg.training.check_report import check_and_report

    return 3 if check_and_report(dataset, out, pictures).errors else 0


def plan_training(
    dataset: Positional[Path], /, out: Annotated[Path, arg(aliases=["-o"])], name: str | None = None
) -> int:
    """Write a config for a dataset: spacing, patch, network and HU window (`medseg train plan` is the same command).

    Args:
        dataset: Our index.json, an nnU-Net v2 dataset folder, an MSD or MONAI dataset.json, or a folder of DICOM
            studies (folders or zips) with RTSTRUCT or SEG.
        out: The YAML file; `medseg train` takes it.
        name: Of the model; the file's name if not given.
    """
    from medseg.training.plan import plan_and_write

    print(f"Config: {plan_and_write(dataset, out, name)}")
    return 0


def benchmark(
    what: Positional[Literal["memory", "tile"]],
    /,
    model: str = "head-neck-oar",
    classes: int = 117,
    shape: str = "512,512,800",
    max_memory: str | None = None,
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
) -> int:
    """Measure this machine: `tile` (what runs a model fastest) or `memory` (does a long scan fit?).

    `memory` segments a computed scan with random weights, every class everywhere, compares the peak with the
    forecast and the labels with MONAI's. With 117 classes and 800 slices it takes a quarter of an hour on two cores.

    Args:
        what: memory or tile.
        model: For `tile`: name of an installed model or folder of a package.
        classes: For `memory`: background included.
        shape: For `memory`: voxels along the three axes, at least 128 each.
        max_memory: For `memory`: a limit to keep, e.g. 2GB.
        out: JSON file for the figures.
    """
    from medseg.benchmark.console import report_memory, report_tile
    from medseg.errors import ConfigError
    from medseg.runtime.options import parse_memory_mb

    if what == "tile":
        return report_tile(model, out)
    try:
        i, j, k = (int(size) for size in shape.split(","))
    except ValueError:
        raise ConfigError(f"--shape {shape} is not three numbers.", advice="Write it as 512,512,800.") from None
    limit = None if max_memory is None else parse_memory_mb(max_memory)
    return report_memory(classes, (i, j, k), limit, out)


# `medseg models promote` is `medseg promote`.
TWO_WORDS: dict[tuple[str, ...], str] = {
    ("models", "import"): "import",
    ("models", "register"): "register",
    ("models", "promote"): "promote",
    ("models", "rollback"): "rollback",
    ("train", "check"): "check",
    ("train", "plan"): "plan",
}


def main(argv: list[str] | None = None) -> None:
    """Entry point of the `medseg` command."""
    argv = sys.argv[1:] if argv is None else argv
    argv = [TWO_WORDS[first], *argv[2:]] if (first := tuple(argv[:2])) in TWO_WORDS else argv
    commands: Commands = {
        "segment": segment,
        "models": models,
        "import": import_model,
        "register": register_model,
        "promote": promote_model,
        "rollback": roll_back_model,
        "export": export,
        "deidentify": deidentify,
        "evaluate": evaluate,
        "train": train,
        "check": check_data,
        "plan": plan_training,
        "benchmark": benchmark,
    }
    about = "CT in, named and measured organs out. Research use only; not a medical device."
    run_commands(commands, argv, "medseg", about)
