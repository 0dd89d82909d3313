"""Spacing that changes on purpose: which blocks of slices are evened, and what has to prove that none is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medseg import errors
from medseg.imaging import read_volume
from tests.dicom_edits import Edit, both, only, shifted, tags
from tests.phantoms import phantom_volume, write_dicom_series


def _read(folder: Path, steps: Sequence[float], fault: Edit | None = None) -> list[str]:
    """Codes of the findings for slices that are `steps` apart."""
    places = np.concatenate([[0], np.cumsum(steps)])
    volume = phantom_volume((24, 20, len(places)), (7.0, 7.0, 4.0), orientation="LPS")
    spread = shifted(lambda k: (0, 0, places[k] - 4.0 * k))
    read = read_volume(write_dicom_series(folder, volume, fault=both(spread, fault or tags())))
    assert read.spacing_mm[2] == pytest.approx(places[-1] / round(places[-1] / min(steps)))
    assert read.evidence["largest_corner_error_mm"] < 0.001
    assert read.hu.shape[2] == round(places[-1] / min(steps)) + 1
    return [finding.code for finding in read.findings if finding.code != "coarse_spacing"]


@pytest.mark.parametrize(
    ("steps", "fits"),
    [
        ([4.0] * 8 + [6.0] * 3, True),
        ([4.0] * 8 + [6.0] * 2, False),
        ([6.0] * 3 + [4.0] * 8 + [6.0] * 3, True),
        ([5.0] * 8 + [10.0] * 3, True),
        ([5.0] * 8 + [10.5] * 3, False),
        ([4.0] * 8 + [6.0, 6.1, 6.0, 6.1], True),
        ([4.0] * 8 + [6.0, 6.2, 6.0, 6.2], False),
        ([0.6] * 6 + [1.0, 1.04, 1.0, 1.04], True),
        ([0.6] * 6 + [1.0, 1.06, 1.0, 1.06], False),
    ],
)
def test_blocks_of_three_steps_up_to_a_centimetre(steps: list[float], fits: bool, tmp_path: Path) -> None:
    if fits:
        assert _read(tmp_path / "case", steps) == ["uneven_spacing"]
    else:
        with pytest.raises(errors.GeometryError, match="apart"):
            _read(tmp_path / "case", steps)


STEPS = [4.0] * 8 + [6.0] * 5


def _numbered(first: int, way: int) -> Edit:
    def number(dataset: Dataset, k: int) -> None:
        dataset.InstanceNumber = first + way * k

    return number


@pytest.mark.parametrize(("way", "fits"), [(1, True), (-1, True), (2, False), (-2, False), (0, False)])
def test_numbers_without_a_hole_prove_that_none_is_missing(way: int, fits: bool, tmp_path: Path) -> None:
    if fits:
        assert _read(tmp_path / "case", STEPS, _numbered(50, way)) == ["uneven_spacing"]
    else:
        with pytest.raises(errors.GeometryError, match="apart"):
            _read(tmp_path / "case", STEPS, _numbered(50, way))


def test_one_slice_without_a_number_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(errors.GeometryError, match="apart"):
        _read(tmp_path / "case", STEPS, only(6, tags(InstanceNumber=None)))


def _thick(*mm: float) -> Edit:
    """Slices of these thicknesses (the last for all others), without numbers."""

    def edit(dataset: Dataset, k: int) -> None:
        dataset.SliceThickness = mm[min(k, len(mm) - 1)]
        del dataset.InstanceNumber

    return edit


@pytest.mark.parametrize(
    ("steps", "thick", "fits"),
    [
        ([4.0] * 8 + [6.0] * 5, (*[4.0] * 9, 6.0), True),
        ([6.0] * 5 + [4.0] * 8, (*[6.0] * 5, 4.0), True),
        ([4.0] * 8 + [6.0] * 5, (*[4.0] * 9, 5.75), True),
        ([4.0] * 8 + [6.0] * 5, (*[4.0] * 9, 5.65), False),
        ([6.0] * 5 + [4.0] * 8, (6.0, 4.0), False),
        ([4.0] * 8 + [6.0] * 5, (*[4.0] * 13, 6.0), False),
        ([0.6] * 8 + [0.9] * 5, (0.5,), False),
    ],
)
def test_slices_nearly_as_thick_as_their_distance_prove_it_too(
    steps: list[float], thick: tuple[float, ...], fits: bool, tmp_path: Path
) -> None:
    if fits:
        assert _read(tmp_path / "case", steps, _thick(*thick)) == ["uneven_spacing"]
    else:
        with pytest.raises(errors.GeometryError, match="apart"):
            _read(tmp_path / "case", steps, _thick(*thick))


def test_slices_of_unknown_thickness_prove_nothing(tmp_path: Path) -> None:
    with pytest.raises(errors.GeometryError, match="apart"):
        _read(tmp_path / "case", [0.6] * 8 + [0.9] * 5, tags(InstanceNumber=None, SliceThickness=None))
