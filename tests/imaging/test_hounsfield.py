"""Values that are not Hounsfield units are refused; values that only look unusual are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.imaging import Geometry, Volume, read_volume
from tests.phantoms import phantom_volume, write_nifti

BODY = phantom_volume((40, 34, 30), (4.5, 4.5, 5.0), orientation="LPS")
Values = np.ndarray


def _read(tmp_path: Path, values: Values, dtype: str = "<f4") -> Volume:
    grid = Geometry(values.shape, BODY.affine)  # type: ignore[arg-type]
    return read_volume(write_nifti(tmp_path / "case.nii", Volume(values, grid), dtype=dtype))


def _mr(hu: Values) -> Values:
    rng = np.random.default_rng(3)
    tissue = np.interp(hu, [-1000, -500, -90, 40, 120, 700], [0, 0, 900, 450, 600, 30])
    return np.abs(tissue + rng.normal(0, 12, hu.shape))


NOT_HU: dict[str, tuple[Callable[[Values], Values], str]] = {
    "0 to 1": (lambda hu: np.clip((hu + 1000) / 2000, 0, 1), "normalised"),
    "-1 to 1": (lambda hu: np.clip(hu / 1000, -1, 1), "normalised"),
    "z scores": (lambda hu: (hu - hu.mean()) / hu.std(), "normalised"),
    "window of 0 to 255": (lambda hu: np.clip((hu + 160) / 400 * 255, 0, 255).round(), "background"),
    "wide window of 0 to 255": (lambda hu: np.clip((hu + 1000) / 2000 * 255, 0, 255).round(), "background"),
    "offset of 1024": (lambda hu: hu + 1024, "1024"),
    "offset of 1000": (lambda hu: np.maximum(hu + 1000, 0), "1024"),
    "offset of 8192": (lambda hu: hu + 8192, "background"),
    "offset of 32768": (lambda hu: hu + 32768, "unsigned"),
    "offset of 1024, organ alone": (lambda hu: hu[15:27, 12:22, 10:20] + 1024, "1024"),
    "inverted": (lambda hu: -hu, "inverted"),
    "constant": (lambda hu: np.full_like(hu, -1000), "every voxel"),
    "nothing but air": (lambda hu: np.random.default_rng(1).normal(-1000, 15, hu.shape), "soft tissue"),
    "read with the wrong sign": (lambda hu: np.where(hu < 0, hu + 65536, hu), "unsigned"),
    "MR": (_mr, "MR"),
    "MR with some negative values": (lambda hu: _mr(hu) - 15, "MR"),
    "PET": (
        lambda hu: np.where(hu > -300, 2.0, 0.01) * np.random.default_rng(1).uniform(0.5, 9, hu.shape),
        "normalised",
    ),
    "masked with zeros": (lambda hu: np.where(hu < -300, 0, hu), "erased"),
}


@pytest.mark.parametrize("case", NOT_HU)
def test_other_values_are_refused(case: str, tmp_path: Path) -> None:
    change, words = NOT_HU[case]
    with pytest.raises(errors.NotHUError, match=r"case\.nii: ") as refused:
        _read(tmp_path, change(BODY.hu))
    assert words in str(refused.value)


def _implant(hu: Values) -> Values:
    out = hu.copy()
    out[18:21, 15:18, 10:14] = 32767
    return out


def _organ(hu: Values, mean: float, noise: float) -> Values:
    return np.random.default_rng(5).normal(mean, noise, (30, 30, 30)).round()


SOUND: dict[str, tuple[Callable[[Values], Values], tuple[str, ...]]] = {
    "as it is": (lambda hu: hu, ()),
    "without noise": (lambda hu: (hu / 1000).round(1) * 1000, ()),
    "organ without air": (lambda hu: _organ(hu, 60, 18), ()),
    "brain without air": (lambda hu: _organ(hu, 33, 9), ()),
    "fat and muscle without air": (
        lambda hu: np.where(np.indices((30, 30, 30))[0] < 12, -100, 55) + _organ(hu, 0, 12),
        (),
    ),
    "lung alone": (lambda hu: np.where(np.indices((30, 30, 30)).sum(0) % 9 == 0, 40, -850) + _organ(hu, 0, 25), ()),
    "head in a wide picture": (lambda hu: np.pad(hu, 25, constant_values=-1000), ()),
    "implant at the top of the scale": (_implant, ("metal",)),
    "cut off at -160": (lambda hu: np.clip(hu, -160, 240), ("clipped",)),
    "clipped to the scale of old files": (lambda hu: np.clip(hu, -1000, 1000), ()),
}


@pytest.mark.parametrize("case", SOUND)
def test_unusual_scans_are_read(case: str, tmp_path: Path) -> None:
    change, codes = SOUND[case]
    values = change(BODY.hu)
    volume = _read(tmp_path, values)
    assert tuple(f.code for f in volume.findings) == codes
    assert np.array_equal(volume.hu, np.maximum(values, -1024).astype(np.float32))


@pytest.mark.parametrize("padding", [-1500, -2000, -3024, -32768])
def test_padding_below_the_scale_becomes_air(padding: int, tmp_path: Path) -> None:
    values = BODY.hu.copy()
    values[:4], values[-4:] = padding, padding
    volume = _read(tmp_path, values, "<i2")
    assert (volume.hu[:4] == -1024).all()
    assert np.array_equal(volume.hu[4:-4], values[4:-4])
    assert volume.findings == ()


@pytest.mark.parametrize(("top", "is_ct"), [(3072, True), (32767, True), (32768, False)])
def test_the_top_of_the_scale_is_metal_and_what_lies_above_is_not(top: int, is_ct: bool, tmp_path: Path) -> None:
    hu = BODY.hu.copy()
    hu[18:23, 15:20, 10:15] = top  # 3 in 1000 voxels
    if is_ct:
        assert [finding.code for finding in _read(tmp_path, hu).findings] == ["metal"]
    else:
        with pytest.raises(errors.NotHUError, match="unsigned"):
            _read(tmp_path, hu)


def test_no_metal_at_the_top_of_twelve_bits(tmp_path: Path) -> None:
    hu = BODY.hu.copy()
    hu[18:23, 15:20, 10:15] = 3071
    assert _read(tmp_path, hu).findings == ()


@pytest.mark.parametrize("k", [0, 13, 29])
def test_a_slice_of_water_alone_was_never_scanned(k: int, tmp_path: Path) -> None:
    hu = BODY.hu.copy()
    hu[:, :, k] = 0
    (finding,) = _read(tmp_path, hu).findings
    assert finding.code == "blank_slices"
    assert f"1 slice(s) hold one single value (the first is slice {k + 1})" in str(finding)


def test_air_alone_is_blank_between_slices_and_padding_at_an_end(tmp_path: Path) -> None:
    hu = BODY.hu.copy()
    hu[:, :, :2] = hu[:, :, -1] = -1024
    assert _read(tmp_path, hu).findings == ()
    hu[:, :, 7:9] = -1024
    (finding,) = _read(tmp_path, hu).findings
    assert "2 slice(s) hold one single value (the first is slice 8)" in str(finding)


def test_a_cast_of_a_thousand_units_is_no_shift_where_there_is_air(tmp_path: Path) -> None:
    hu = BODY.hu.copy()
    hu[10:30, 8:26, 10:15] = 1000
    assert _read(tmp_path, hu).findings == ()
