"""Label maps with known scores, written as real files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

SPACING_MM = (2.0, 1.5, 3.0)
SHAPE = (24, 28, 30)
TABLE = {"brainstem": 1, "parotid_gland_right": 2, "parotid_gland_left": 3}


@pytest.fixture
def table() -> dict[str, int]:
    return dict(TABLE)


@pytest.fixture
def affine() -> Any:
    matrix = np.diag([*SPACING_MM, 1.0])
    matrix[:3, 3] = -20.0, 7.0, -100.0
    return matrix


@pytest.fixture
def head() -> Any:
    """Three organs; i grows to the patient's right-to-left (R+), so the right gland has the higher index."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:14, 8:18, 4:26] = 1
    labels[16:22, 8:14, 12:20] = 2
    labels[2:8, 8:14, 12:20] = 3
    return labels


@pytest.fixture
def save(affine: Any) -> Callable[..., Path]:
    def write(path: Path, labels: Any, matrix: Any = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine if matrix is None else matrix), path)
        return path

    return write


@pytest.fixture
def save_result(save: Callable[..., Path]) -> Callable[..., Path]:
    def write(folder: Path, labels: Any, names: Mapping[str, int] = TABLE, matrix: Any = None) -> Path:
        save(folder / "mask.nii.gz", labels, matrix)
        entries = [{"name": name, "value": value, "colour": "#ffffff"} for name, value in names.items()]
        (folder / "labels.json").write_text(json.dumps({"labels": entries}))
        return folder

    return write


@pytest.fixture
def save_index() -> Callable[..., Path]:
    def write(path: Path, contoured: Mapping[str, list[str]], labels: Mapping[str, int] = TABLE) -> Path:
        cases = [{"id": name, "split": "validation", "contoured": organs} for name, organs in contoured.items()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"labels": dict(labels), "cases": cases}))
        return path

    return write
