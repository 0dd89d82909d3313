"""The example CT that ships with the project (see README.md beside this file for what it is)."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def example_path() -> Path:
    """The example CT: `head_neck_ct.nii.gz`, int16 HU, a population average and no patient's scan."""
    return _FOLDER / "head_neck_ct.nii.gz"


def example_labels_path() -> Path:
    """Its label map on the same grid: `head_neck_labels.nii.gz`, uint8, values as in the training data's index."""
    return _FOLDER / "head_neck_labels.nii.gz"
