"""What the training references say about where organs lie: `Anatomy` for the model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medseg.imaging.volume import Array
from medseg.labels import LabelTable
from medseg.models.card import Anatomy, FieldLimits, Offset, OrganRange
from medseg.training.cases import TrainingCase

MIN_CASES = 5
ABOVE_MM = 10.0  # of skull above the highest contour that still counts as the field


@dataclass(frozen=True)
class _Organ:
    centre_mm: Array
    low_mm: float
    high_mm: float
    volume_ml: float
    mean_hu: float
    whole: bool


def build_anatomy(
    cases: Sequence[TrainingCase], labels: LabelTable, spacing_mm: tuple[float, float, float], open_ended: Sequence[str]
) -> Anatomy | None:
    """Volumes, HU, pairwise offsets and the field around each landmark, from references.

    Organs cut by the edge of a scan count for nothing; open-ended organs are no landmarks.
    None where fewer than two landmarks are known: a model that was checked against nothing
    would find nothing.
    """
    found = [_organs(case, labels, np.array(spacing_mm)) for case in cases]
    landmarks = [label.name for label in labels if label.name not in open_ended]
    landmarks = [name for name in landmarks if sum(_is_whole(case, name) for case in found) >= MIN_CASES]
    offsets = [offset for a, b in combinations(landmarks, 2) if (offset := _offset(found, a, b))]
    if not offsets:
        return None
    return Anatomy(
        organs={name: _range([case[name] for case in found if _is_whole(case, name)]) for name in landmarks},
        offsets=offsets,
        field={name: _field(found, name) for name in landmarks},
    )


def _organs(case: TrainingCase, labels: LabelTable, spacing_mm: Array) -> dict[str, _Organ]:
    organs = {}
    for label in labels:
        if not case.known[label.value] or label.value not in case.places:
            continue
        index = case.places[label.value]
        heights = index[:, 2] * spacing_mm[2]
        organs[label.name] = _Organ(
            centre_mm=index.mean(axis=0) * spacing_mm,
            low_mm=float(heights.min()),
            high_mm=float(heights.max()),
            volume_ml=len(index) * float(spacing_mm.prod()) / 1000,
            mean_hu=float(case.hu[tuple(index.T)].mean()),
            whole=bool(index[:, 2].min() > 0 and index[:, 2].max() < case.hu.shape[2] - 1),
        )
    return organs


def _is_whole(case: dict[str, _Organ], name: str) -> bool:
    return name in case and case[name].whole


def _range(organs: Sequence[_Organ]) -> OrganRange:
    volumes = np.percentile([organ.volume_ml for organ in organs], [1, 50, 99])
    hus = np.percentile([organ.mean_hu for organ in organs], [1, 50, 99])
    return OrganRange(volume_ml=_rounded(volumes), mean_hu=_rounded(hus))


def _offset(found: Sequence[dict[str, _Organ]], a: str, b: str) -> Offset | None:
    ways = [case[b].centre_mm - case[a].centre_mm for case in found if _is_whole(case, a) and _is_whole(case, b)]
    if len(ways) < MIN_CASES:
        return None
    return Offset(start=a, end=b, mean_mm=_rounded(np.mean(ways, axis=0)), sd_mm=_rounded(np.std(ways, axis=0)))


def _field(found: Sequence[dict[str, _Organ]], name: str) -> FieldLimits:
    seen = [case for case in found if _is_whole(case, name)]
    below = [float(case[name].centre_mm[2]) - min(organ.low_mm for organ in case.values()) for case in seen]
    above = [max(organ.high_mm for organ in case.values()) - float(case[name].centre_mm[2]) for case in seen]
    low, high = float(np.percentile(below, 98)), float(np.percentile(above, 98))
    return FieldLimits(below_mm=round(low, 1), above_mm=round(high + ABOVE_MM, 1))


def _rounded(values: Array) -> tuple[float, float, float]:
    a, b, c = (round(float(value), 2) for value in values)
    return a, b, c
