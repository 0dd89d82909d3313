"""A package scored on a data set's validation split, and what of it belongs on a model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medseg.evaluation import Scorecard, evaluate
from medseg.evaluation.calibration import Calibration
from medseg.evaluation.matching import MaskFile, Matches
from medseg.imaging.emit import emit_json
from medseg.imaging.nifti import read_label_map, read_nifti, write_label_map
from medseg.inference.segmenter import build_segmenter
from medseg.models.store import load_model
from medseg.preprocess.restore import LabelMap
from medseg.runtime.provenance import StageClock
from medseg.training.cases import CaseFiles, Dataset
from medseg.training.config import TrainConfig

CALIBRATION = "scores/calibration.json"


def validate(out: Path, settings: TrainConfig, dataset: Dataset, report: Callable[[str], None]) -> Scorecard | None:
    """Segment the validation split with the package in `out` and score it; None without one."""
    cases = dataset.of("validation")
    if not cases:
        return None
    segmenter = build_segmenter(load_model(out / "package"))
    pairs, calibration = [], Calibration()
    for number, case in enumerate(cases, 1):
        raw, mask = segmenter(read_nifti(case.ct), StageClock()), out / "validation" / f"{case.id}.nii.gz"
        write_label_map(mask, raw.label_map.labels, raw.label_map.geometry)
        calibration = _calibrated(calibration, raw.label_map, case, dataset)
        pairs.append((MaskFile(case.id, case.label), MaskFile(case.id, mask)))
        report(f"validated {number}/{len(cases)}")
    emit_json(out / CALIBRATION, calibration.to_json())
    return evaluate(
        out / "validation",
        cases[0].label.parent,
        out / "scores",
        matches=Matches(tuple(pairs), ()),
        index=settings.index,
        within_contoured=settings.open_ended,
        labels=dataset.labels,
    )


def _calibrated(calibration: Calibration, found: LabelMap, case: CaseFiles, dataset: Dataset) -> Calibration:
    reference, geometry = read_label_map(case.label)
    if not geometry.matches(found.geometry):  # the scores refuse it by name
        return calibration
    known = [dataset.labels[organ] for organ in case.contoured]
    return calibration.seen(found.labels, found.confidence, reference, known)


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
