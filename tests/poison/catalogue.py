"""All cases of the catalogue, in its order."""

from __future__ import annotations

from tests.poison import dicom_folders, dicom_pixels, dicom_stacks, files, headed, nifti, values  # noqa: F401 - they fill the list
from tests.poison.base import CASES, Case


def catalogue() -> list[Case]:
    """Every case whose recipe can be made on this machine."""
    return sorted(CASES, key=lambda case: (case.number[0], int("".join(c for c in case.number if c.isdigit()))))
