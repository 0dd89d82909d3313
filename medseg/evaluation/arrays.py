"""One case: every known organ of two label arrays compared. Knows no files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg.errors import DataError
from medseg.evaluation.metrics import Figures, measure
from medseg.evaluation.policy import Settings
from medseg.imaging.volume import Array, Geometry

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class OrganScore:
    """One organ in one case.

    Attributes:
        case: name of the case.
        organ: name of the organ.
        figures: scores in the organ's scope (the contoured slices, where the settings name it; else the whole scan).
        plain: scores in the whole scan.
        tolerance_mm: of the surface Dice.
        handed_in: False where there was no prediction for the case.
        swapped: the organ was found on the other side of the patient.
    """

    case: str
    organ: str
    figures: Figures
    plain: Figures
    tolerance_mm: float
    handed_in: bool = True
    swapped: bool = False


def evaluate_arrays(
    prediction: Array | None,
    reference: Array,
    geometry: Geometry | tuple[float, float, float],
    *,
    labels: Mapping[str, int],
    prediction_labels: Mapping[str, int] | None = None,
    known: Collection[str] | None = None,
    settings: Settings | None = None,
    case: str = "case",
) -> tuple[OrganScore, ...]:
    """Score one predicted label array against its reference.

    Args:
        prediction: integer labels [i, j, k], or None where there is no prediction (every organ is a miss).
        reference: integer labels, same shape.
        geometry: the grid of both, or its spacing in mm (then k is taken as the superior-inferior axis).
        labels: organ -> value in the reference.
        prediction_labels: organ -> value in the prediction; the reference's where None.
        known: organs that were contoured in this case; all of `labels` where None. The others are not scored.
        settings: tolerances, contoured windows, rules for empty masks.
        case: name for the rows and for errors.

    Raises:
        DataError: the arrays differ in shape.
    """
    settings = settings or Settings()
    grid = geometry if isinstance(geometry, Geometry) else Geometry(_shape3(reference), np.diag([*geometry, 1.0]))
    shapes = {reference.shape, grid.shape, reference.shape if prediction is None else prediction.shape}
    if len(shapes) > 1:
        raise DataError(f"Case {case}: prediction, reference and grid differ in shape: {sorted(shapes)}.")
    pair = _Pair(case, prediction, reference, grid, labels, labels if prediction_labels is None else prediction_labels)
    organs = [organ for organ in labels if known is None or organ in known]
    return tuple(pair.score(organ, organs, settings) for organ in organs)


class _Pair:
    """A prediction and a reference with the box of every label, so that each organ is cut out once."""

    def __init__(
        self,
        case: str,
        prediction: Array | None,
        reference: Array,
        grid: Geometry,
        labels: Mapping[str, int],
        prediction_labels: Mapping[str, int],
    ) -> None:
        self.case, self.grid, self.handed_in = case, grid, prediction is not None
        self.reference, self.labels = reference, labels
        self.prediction = np.zeros(grid.shape, np.uint8) if prediction is None else prediction
        self.prediction_labels = prediction_labels
        self.reference_boxes = _boxes(self.reference)
        self.prediction_boxes = _boxes(self.prediction)

    def score(self, organ: str, known: Collection[str], settings: Settings) -> OrganScore:
        theirs = self.reference_boxes.get(self.labels[organ])
        ours = self.prediction_boxes.get(self.prediction_labels.get(organ, -1))
        tolerance = settings.tolerance_of(organ)
        plain = self._measure(organ, _union(ours, theirs), settings, tolerance)
        figures = plain
        if organ in settings.within_contoured and theirs is not None:
            window = contoured_window(theirs, self.grid, settings.margin_slices)
            figures = self._measure(organ, _within(_union(ours, theirs), window), settings, tolerance)
        swapped = self._swapped(organ, known)
        return OrganScore(self.case, organ, figures, plain, tolerance, self.handed_in, swapped)

    def _measure(self, organ: str, box: Box, settings: Settings, tolerance_mm: float) -> Figures:
        ours, theirs = self._predicted(organ, box), self._referenced(organ, box)
        return measure(ours, theirs, self.grid, tolerance_mm, settings.policy, handed_in=self.handed_in)

    def _predicted(self, organ: str, box: Box) -> Array:
        value = self.prediction_labels.get(organ)
        cut = self.prediction[box]
        return np.zeros(cut.shape, bool) if value is None else cut == value

    def _referenced(self, organ: str, box: Box) -> Array:
        return self.reference[box] == self.labels[organ]

    def _swapped(self, organ: str, known: Collection[str]) -> bool:
        """Whether the opposite organ's prediction covers more of this reference, or this prediction of the other's."""
        other = opposite(organ)
        if other is None:
            return False
        own = self._overlap(organ, organ)
        return self._overlap(other, organ) > own or (other in known and self._overlap(organ, other) > own)

    def _overlap(self, predicted: str, referenced: str) -> int:
        box = self.reference_boxes.get(self.labels[referenced])
        if box is None:
            return 0
        return int((self._predicted(predicted, box) & self._referenced(referenced, box)).sum())


def opposite(organ: str) -> str | None:
    """The organ of the other side, for names that end in _left or _right."""
    for side, other in (("_left", "_right"), ("_right", "_left")):
        if organ.endswith(side):
            return organ.removesuffix(side) + other
    return None


def contoured_window(box: Box, grid: Geometry, margin_slices: int) -> tuple[int, slice]:
    """The superior-inferior axis of the array and the slices from first to last contoured ± margin."""
    axis = int(np.flatnonzero(grid.to_canonical[:, 0] == 2)[0])
    start = max(0, box[axis].start - margin_slices)
    return axis, slice(start, min(grid.shape[axis], box[axis].stop + margin_slices))


def _within(box: Box, window: tuple[int, slice]) -> Box:
    axis, span = window
    cut = list(box)
    cut[axis] = slice(max(box[axis].start, span.start), min(box[axis].stop, span.stop))
    return cut[0], cut[1], cut[2]


def _boxes(labels: Array) -> dict[int, Box]:
    found = ndimage.find_objects(labels.astype(np.int32, copy=False))
    return {value: box for value, box in enumerate(found, start=1) if box is not None}


def _union(ours: Box | None, theirs: Box | None) -> Box:
    if ours is None or theirs is None:
        return ours or theirs or (slice(0, 0), slice(0, 0), slice(0, 0))
    spans = [slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(ours, theirs, strict=True)]
    return spans[0], spans[1], spans[2]


def _shape3(array: Array) -> tuple[int, int, int]:
    if array.ndim != 3:
        raise DataError(f"Labels have {array.ndim} dimensions; three are needed.")
    return array.shape[0], array.shape[1], array.shape[2]
