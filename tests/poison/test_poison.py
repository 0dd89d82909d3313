"""Every bad input of the catalogue gets the verdict that it should; none is read wrong in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.errors import InputError
from medseg.imaging import Volume, read_volume
from tests.phantoms import PLANTED_NAME
from tests.poison.base import Case, base
from tests.poison.catalogue import catalogue


@pytest.mark.parametrize("case", catalogue(), ids=lambda case: case.id)
def test_every_case_gets_its_verdict(case: Case, tmp_path: Path) -> None:
    source = case.make(tmp_path)
    if case.expect.verdict == "refused":
        _check_refusal(case, source)
        return
    volume = read_volume(source, series=case.series)
    assert sorted({finding.code for finding in volume.findings}) == sorted(case.expect.codes)
    if case.expect.truth:
        assert_is_phantom(volume)
    assert "PLANTED" not in repr((volume, volume.evidence))


def _check_refusal(case: Case, source: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_volume(source, series=case.series)
    kinds = tuple(getattr(errors, name) for name in case.expect.errors)
    assert isinstance(refused.value, kinds), repr(refused.value)
    text = str(refused.value)
    assert source.name in text or not source.name.isprintable()
    assert refused.value.advice
    assert PLANTED_NAME not in text
    assert "PLANTED" not in text


def assert_is_phantom(volume: Volume) -> None:
    """Every voxel of the phantom lies at its place in the patient, whatever the order of the axes."""
    truth = base()
    index = np.stack(np.meshgrid(*[np.arange(n) for n in truth.hu.shape], indexing="ij")).reshape(3, -1)
    place = truth.affine[:3, :3] @ index + truth.affine[:3, 3:]
    found = np.linalg.inv(volume.affine)[:3] @ np.vstack([place, np.ones(place.shape[1])])
    assert np.abs(found - np.round(found)).max() < 0.01
    at = np.round(found).astype(int)
    assert volume.hu.size == truth.hu.size
    assert np.abs(volume.hu[tuple(at)] - truth.hu.ravel()).max() < 0.01
