"""Changes to DICOM slices on their way to disk: what `write_dicom_series` takes as its fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

Edit = Callable[[Dataset, int], Any]


def tags(**values: Any) -> Edit:
    """These values; None removes the attribute."""

    def edit(dataset: Dataset, k: int) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


def only(at: int, edit: Edit) -> Edit:
    """The change in one slice alone."""
    return lambda dataset, k: edit(dataset, k) if k == at else None


def shifted(by: Callable[[int], Sequence[float]]) -> Edit:
    """Slice k moved by a vector of LPS mm."""

    def edit(dataset: Dataset, k: int) -> None:
        places = zip(dataset.ImagePositionPatient, by(k), strict=True)
        dataset.ImagePositionPatient = [f"{float(mm) + step:.6f}" for mm, step in places]

    return edit


def both(*edits: Edit) -> Edit:
    """One change after the other."""

    def edit(dataset: Dataset, k: int) -> None:
        for one in edits:
            one(dataset, k)

    return edit


def of_class(uid: str, modality: str) -> Edit:
    """Another kind of object."""

    def edit(dataset: Dataset, k: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
        dataset.Modality = modality

    return edit


def lean(dataset: Dataset, k: int) -> None:
    """A gantry tilted by 15 degrees."""
    dataset.ImageOrientationPatient = [1, 0, 0, 0, f"{np.cos(np.pi / 12):.9f}", f"{np.sin(np.pi / 12):.9f}"]
