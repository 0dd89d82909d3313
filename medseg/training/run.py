"""One config -> a trained, scored model package."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError
from medseg.evaluation import Scorecard, evaluate
from medseg.imaging.nifti import read_nifti, write_label_map
from medseg.inference.segmenter import build_segmenter
from medseg.labels import LabelTable
from medseg.models.store import load_model
from medseg.runtime.provenance import StageClock
from medseg.training.cases import Dataset, load_cases, read_index
from medseg.training.checkpoint import LAST
from medseg.training.config import TrainConfig, load_config
from medseg.training.package import add_metrics, write_package
from medseg.training.patches import PatchSampler
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
) -> Path:
    """Train, package and score a model.

    Args:
        config: YAML file or name of a preset.
        out: run folder.
        resume: go on from its checkpoint.
        overrides: settings that win over the config's.
        report: gets a line of text now and then.

    Returns:
        Folder of the model package.

    Raises:
        ConfigError: a bad setting, or a run that stands there already.
        DataError: the dataset does not fit together.
    """
    settings = load_config(config, overrides)
    if (out / LAST).is_file() and not resume:
        raise ConfigError(f"{out} holds a run already.", advice="Go on with --resume, or choose another folder.")
    dataset = read_index(settings.index)
    labels = LabelTable.from_names(dataset.labels)
    cases = list(load_cases(dataset.of("train"), dataset.labels, settings.spacing_mm))
    report(f"{len(cases)} training cases")
    task = SegmentationTask(PatchSampler(cases, settings, labels), settings)
    trainer = Trainer(task, settings.loop, out, progress=lambda event: report(event.message))
    trainer.resume()
    card = write_package(out / "package", trainer.run(), settings, labels, cases)
    report("scoring on the validation split")
    add_metrics(out / "package", card, validate(out, settings, dataset, report))
    return out / "package"


def validate(out: Path, settings: TrainConfig, dataset: Dataset, report: Callable[[str], None]) -> dict[str, Any]:
    """Segment the validation split with the package in `out` and score it; empty without one."""
    cases = dataset.of("validation")
    if not cases:
        return {}
    segmenter = build_segmenter(load_model(out / "package"))
    for number, case in enumerate(cases, 1):
        raw = segmenter(read_nifti(case.ct), StageClock())
        write_label_map(out / "validation" / f"{case.id}.nii.gz", raw.label_map.labels, raw.label_map.geometry)
        report(f"validated {number}/{len(cases)}")
    card = evaluate(
        out / "validation",
        cases[0].label.parent,
        out / "scores",
        index=settings.index,
        within_contoured=settings.open_ended,
        labels=dataset.labels,
    )
    return card_metrics(card, f"{settings.index.parent.name}, validation split, {len(cases)} patients")


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
