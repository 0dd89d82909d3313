"""Dice, surface Dice and HD95 of one organ: MONAI's functions on the organ's box, in millimetres.

MONAI measures in voxels unless the spacing is handed in, and answers NaN for an empty mask; both are settled here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from medseg.evaluation.policy import EmptyPolicy, Outcome
from medseg.imaging.volume import Array, Geometry

# Two slices of 2.5 mm are within 5 mm whatever the rounding of the affine.
ROUNDING_MM = 1e-3


@dataclass(frozen=True)
class Figures:
    """The scores of one organ in one case; None where a figure is undefined.

    Attributes:
        outcome: what became of the organ.
        dice: 2·|P∩R| / (|P|+|R|); 0 for a miss or a false positive.
        surface_dice: share of both surfaces within the tolerance of the other (Nikolov et al., 2021).
        hd95_mm: the larger of the two directed 95th percentiles of surface distance.
        hd95_penalised_mm: the same, with the diagonal of the field of view where the organ was missed or invented.
        reference_ml: volume of the reference.
        prediction_ml: volume of the prediction.
    """

    outcome: Outcome
    dice: float | None
    surface_dice: float | None
    hd95_mm: float | None
    hd95_penalised_mm: float | None
    reference_ml: float
    prediction_ml: float

    @property
    def volume_error_ml(self) -> float:
        """Predicted minus reference volume."""
        return self.prediction_ml - self.reference_ml

    @property
    def volume_error_percent(self) -> float | None:
        """Volume error relative to the reference; None where that is empty."""
        return 100 * self.volume_error_ml / self.reference_ml if self.reference_ml else None


def measure(
    prediction: Array,
    reference: Array,
    geometry: Geometry,
    tolerance_mm: float,
    policy: EmptyPolicy,
    *,
    handed_in: bool = True,
) -> Figures:
    """Compare two masks of one organ.

    Args:
        prediction: bool [i, j, k], the organ's box or more; voxels outside the array count as background.
        reference: bool, same shape.
        geometry: the whole scan's grid: spacing, voxel volume, field of view.
        tolerance_mm: surface Dice tolerance.
        policy: rules for empty masks.
        handed_in: False where no prediction exists for the case.
    """
    predicted, referenced = int(prediction.sum()), int(reference.sum())
    outcome = policy.outcome(predicted > 0, referenced > 0, handed_in)
    volumes = referenced * geometry.voxel_ml, predicted * geometry.voxel_ml
    if outcome is Outcome.SCORED:
        dice, surface, hd95 = _overlap_and_surface(prediction, reference, geometry.spacing_mm, tolerance_mm)
        return Figures(outcome, dice, surface, hd95, hd95, *volumes)
    if outcome in (Outcome.MISS, Outcome.FALSE_POSITIVE):
        return Figures(outcome, 0.0, 0.0, None, field_of_view_mm(geometry), *volumes)
    return Figures(outcome, None, None, None, None, *volumes)


def _overlap_and_surface(
    prediction: Array, reference: Array, spacing_mm: tuple[float, float, float], tolerance_mm: float
) -> tuple[float, float, float]:
    pair = _one_channel(prediction), _one_channel(reference)
    dice = compute_dice(*pair, include_background=True)
    with warnings.catch_warnings():
        # MONAI 1.6 calls its own deprecated argument.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        surface = compute_surface_dice(
            *pair,
            class_thresholds=[tolerance_mm + ROUNDING_MM],
            include_background=True,
            spacing=spacing_mm,
            use_subvoxels=True,  # surface elements weighted by their area, as DeepMind's surface-distance does
        )
        hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing_mm)
    return float(dice), float(surface), float(hd95)


def _one_channel(mask: Array) -> torch.Tensor:
    # A rim of background: a mask that ends with the array has a surface there too.
    return torch.from_numpy(np.pad(mask, 1).astype(np.float32))[None, None]


def field_of_view_mm(geometry: Geometry) -> float:
    """Diagonal of the scan: the distance that stands for 'not found'."""
    return float(np.linalg.norm(np.multiply(geometry.shape, geometry.spacing_mm)))
