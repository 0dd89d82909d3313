"""One config -> a trained, scored model package."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError, DataError
from medseg.evaluation import Scorecard, evaluate
from medseg.imaging.nifti import read_nifti, write_label_map
from medseg.inference.segmenter import build_segmenter
from medseg.labels import LabelTable
from medseg.models.store import load_model
from medseg.runtime.provenance import StageClock
from medseg.training.cases import Dataset, load_cases, read_index
from medseg.training.checkpoint import LAST
from medseg.training.config import TrainConfig, load_config
from medseg.training.distributed import Ranks, joined, wait_for_all
from medseg.training.foreign import adopt, locate
from medseg.training.package import add_metrics, write_package
from medseg.training.patches import PatchSampler
from medseg.training.phantoms import write_phantoms
from medseg.training.run_report import write_report
from medseg.training.segmentation import SegmentationTask
from medseg.training.trainer import Trainer

_say = partial(print, flush=True)  # a log file shows a long run as it goes


def train_model(
    config: str | Path,
    out: Path,
    *,
    resume: bool = False,
    overrides: dict[str, Any] | None = None,
    report: Callable[[str], None] = _say,
) -> Path | None:
    """Train, package and score a model; under torchrun together with the other ranks.

    Args:
        config: YAML file or name of a preset.
        out: run folder.
        resume: go on from its checkpoint; start where there is none.
        overrides: settings that win over the config's.
        report: gets a line of text now and then, on the first rank.

    Returns:
        Folder of the model package; None on ranks other than the first, whose work ends with the training.

    Raises:
        ConfigError: a bad setting, or a run that stands there already.
        DataError: the dataset does not fit together, or a loss is not finite (names the cases).
        WorkerError: a rank, or a process that prepares batches, is gone.
    """
    settings = load_config(config, overrides)
    if (out / LAST).is_file() and not resume:
        raise ConfigError(f"{out} holds a run already.", advice="Go on with --resume, or choose another folder.")
    with joined(settings.loop.device) as ranks:
        say = report if ranks.first else _quiet
        settings = _with_data(settings, out, ranks, say)
        assert settings.index is not None
        dataset = read_index(settings.index)
        _check_left_out(dataset, say)
        task = _task(settings, dataset, say)
        trainer = Trainer(task, settings.loop, out, ranks=ranks, progress=lambda event: say(event.message))
        trainer.resume()
        network = trainer.run()
    if not ranks.first:
        return None
    card = write_package(out / "package", network, settings, task.sampler.labels, task.sampler.cases)
    report("scoring on the validation split")
    scores = validate(out, settings, dataset, report)
    if scores is not None:
        add_metrics(out / "package", card, card_metrics(scores, _data_name(settings, len(scores.cases))))
    report(f"report: {write_report(out, settings, dataset, scores)}")
    return out / "package"


def _data_name(settings: TrainConfig, patients: int) -> str:
    assert settings.index is not None
    name = "computed bodies" if settings.phantoms else settings.index.resolve().parent.name
    return f"{name}, validation split, {patients} patients"


def _quiet(line: str) -> None:
    """Ranks after the first."""


def _check_left_out(dataset: Dataset, say: Callable[[str], None]) -> None:
    """A study without contours is said and left out; one that cannot be used stops the run: somebody counts on it."""
    for study in dataset.left_out:
        if study.fault:
            raise DataError(study.reason, advice="Mend it or move it away; `medseg train check` lists all of them.")
        say(f"left out: {study.reason}")


def _with_data(settings: TrainConfig, out: Path, ranks: Ranks, say: Callable[[str], None]) -> TrainConfig:
    """The settings with an index of ours: the first rank computes phantoms or links another tool's data set."""
    folder = out / "data"
    if settings.index is not None:
        description, ours = locate(settings.index)
        if ours:
            return settings.model_copy(update={"index": description})
        named = description.resolve()
        folder = folder / (named.name if named.is_dir() else named.parent.name)
        if ranks.first:
            adopt(description, folder, say)
    elif ranks.first and settings.phantoms is not None:
        write_phantoms(folder, settings.phantoms)
    wait_for_all()
    return settings.model_copy(update={"index": folder / "index.json"})


def _task(settings: TrainConfig, dataset: Dataset, say: Callable[[str], None]) -> SegmentationTask:
    cases = list(load_cases(dataset.of("train"), dataset.labels, settings.spacing_mm))
    say(f"{len(cases)} training cases")
    looked_at = dataset.of("validation") if settings.loop.validate_steps else ()
    validation = load_cases(looked_at, dataset.labels, settings.spacing_mm)
    sampler = PatchSampler(cases, settings, LabelTable.from_names(dataset.labels))
    return SegmentationTask(sampler, settings, list(validation))


def validate(out: Path, settings: TrainConfig, dataset: Dataset, report: Callable[[str], None]) -> Scorecard | None:
    """Segment the validation split with the package in `out` and score it; None without one."""
    cases = dataset.of("validation")
    if not cases:
        return None
    segmenter = build_segmenter(load_model(out / "package"))
    for number, case in enumerate(cases, 1):
        raw = segmenter(read_nifti(case.ct), StageClock())
        write_label_map(out / "validation" / f"{case.id}.nii.gz", raw.label_map.labels, raw.label_map.geometry)
        report(f"validated {number}/{len(cases)}")
    return evaluate(
        out / "validation",
        cases[0].label.parent,
        out / "scores",
        index=settings.index,
        within_contoured=settings.open_ended,
        labels=dataset.labels,
    )


def card_metrics(scores: Scorecard, data: str) -> dict[str, Any]:
    """The figures of a scorecard that belong on a model card."""
    summary = scores.to_dict()
    organs = {organ: _figures(row) for organ, row in summary["organs"].items()}
    return {
        "data": data,
        "mean_dice": _rounded(summary["overall"]["dice"]["mean"]),
        "left_right_swaps": summary["left_right_swaps"],
        "surface_tolerance_mm": scores.settings.tolerance_mm,
        "organs": organs,
    }


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    figures = {"n": row["n"], "misses": row["misses"], "scope": row["scope"]}
    for key in ("dice", "surface_dice", "hd95_mm"):
        figures[key] = _rounded(row[key]["mean"])
    if "plain" in row:
        figures["plain_dice"] = _rounded(row["plain"]["dice"]["mean"])
    return figures


def _rounded(mean: float | None) -> float | None:
    """Four digits; None where no case could be judged."""
    return None if mean is None else round(mean, 4)
