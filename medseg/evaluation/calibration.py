"""Calibration: of the voxels that a model calls organ with 80 % probability, are 80 % that organ?

Source: reliability diagrams and expected calibration error, Guo et al., On Calibration of Modern Neural Networks
(ICML 2017), counted over labelled voxels: background is most of a scan and nearly always right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg.imaging.volume import Array

BINS = 10


def _nothing() -> Array:
    return np.zeros(BINS)


@dataclass(frozen=True)
class Calibration:
    """Counts in ten bins of probability.

    Attributes:
        voxels: labelled voxels in each.
        sure: sum of their probabilities.
        right: how many of them carry the reference's label.
    """

    voxels: Array = field(default_factory=_nothing)
    sure: Array = field(default_factory=_nothing)
    right: Array = field(default_factory=_nothing)

    def seen(self, labels: Array, confidence: Array, reference: Array, known: Iterable[int]) -> Calibration:
        """With one case more.

        Args:
            labels: uint8, 0 is background.
            confidence: uint8, the probability of the label in 1/255.
            reference: labels that are right, on the same grid.
            known: labels that were contoured in this case; others cannot be judged.
        """
        judged = np.isin(labels, sorted(set(known) - {0}))
        sure, right = confidence[judged] / 255.0, (labels[judged] == reference[judged]).astype(float)
        place = np.minimum((sure * BINS).astype(int), BINS - 1)
        counts = (np.bincount(place, weights, BINS) for weights in (np.ones_like(sure), sure, right))
        return Calibration(*(old + new for old, new in zip((self.voxels, self.sure, self.right), counts, strict=True)))

    @property
    def error(self) -> float | None:
        """Expected calibration error: the mean distance of probability and share that is right; None of nothing."""
        total = self.voxels.sum()
        return None if total == 0 else float(np.abs(self.sure - self.right).sum() / total)

    def to_json(self) -> dict[str, Any]:
        """For a file beside the scores."""
        counts = {name: getattr(self, name).round(3).tolist() for name in ("voxels", "sure", "right")}
        return {"expected_calibration_error": self.error, "bins": BINS, **counts}
