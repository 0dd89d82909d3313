"""Commands about training: train, and look at the data and plan before."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from medseg.commands.arguments import Out


def train(
    config: Annotated[Positional[str], arg(metavar="CONFIG")],
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

    `medseg train smoke -o RUN` needs no data and takes a minute; `medseg train head-neck-oar -o RUN` is today's recipe
    of the shipped model (1.1.0 itself: `--set neglected_weight=1 loop.precision=bf16`). First comes the small-batch
    validation, some minutes that try everything the full training needs and forecast when it ends; the full training
    starts when that was sound. A run that was killed goes on with --resume and ends with the same weights (on a CPU).
    Several processes or machines: `torchrun --nproc-per-node N -m medseg train ...`. See also `medseg train check`
    (faults of a dataset) and `medseg train plan` (a config for it).

    Exit codes: 0 done, 3 with `--stage small` where the small-batch validation was not sound.

    Args:
        config: A YAML file or the name of a preset.
        out: Run folder: checkpoint, log, package.
        max_steps: Optimiser steps of the whole run, resumed parts included; in place of the config's.
        seed: In place of the config's.
        index: The dataset, in place of the config's: our index.json, an nnU-Net v2 dataset folder, an MSD or MONAI
            dataset.json, or a folder of DICOM studies (folders or zips) with RTSTRUCT or SEG.
        resume: Go on from the run folder's checkpoint; start where there is none.
        stage: `small` for the small-batch validation alone, `full` for the full training without it.
        folds: Cross-validation: in how many folds the cases are parted, whatever split the dataset has. With --fold
            alone: 5, or as many as the config says.
        fold: The fold that validates, from 0 on; one run a fold. With --folds alone: 0, or the config's.
        set_: Further settings in place of the config's, e.g. loop.learning_rate=1e-3 batch_size=4.
    """
    from medseg.training.config import parse_settings
    from medseg.training.run import train_model
    from medseg.training.settings import only_given
    from medseg.training.small_batch_result import read_small_batch

    named = {"loop.max_steps": max_steps, "loop.seed": seed, "index": index, "folds.count": folds, "folds.number": fold}
    overrides = parse_settings(set_) | only_given(named)
    package = train_model(config, out, resume=resume, stage=stage, overrides=overrides)
    if package is not None:
        print(f"Model package: {package}")
    small = read_small_batch(out) if stage == "small" else None
    return 3 if small is not None and not small.sound else 0


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
    dataset: Positional[Path], /, out: Out, name: str | None = None, memory: str | None = None, force: bool = False
) -> int:
    """Write a config for a dataset: spacing, patch, network, batch, window (`medseg train plan` is the same command).

    Args:
        dataset: Our index.json, an nnU-Net v2 dataset folder, an MSD or MONAI dataset.json, or a folder of DICOM
            studies (folders or zips) with RTSTRUCT or SEG.
        out: The YAML file; `medseg train` takes it.
        name: Name of the model; the file's name if not given.
        memory: That the training may take, e.g. 8GB: of the GPU where there is one, of this computer otherwise. All
            of the GPU's, or what this computer has free, if not given.
        force: Overwrite OUT where it is there already and was edited, or planned from something else.
    """
    from medseg.runtime.options import parse_memory_mb
    from medseg.training.fit import Room
    from medseg.training.plan import plan_and_write

    room = Room.here(None if memory is None else parse_memory_mb(memory))
    say = partial(print, flush=True)
    print(f"Config: {plan_and_write(dataset, out, name, room, force=force, say=say)}")
    return 0
