"""Where Hounsfield units end: values by their shares, just inside what a CT can look like and just outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.imaging.checks import check_hounsfield, leap_findings

SHAPE = (20, 25, 20)
VOXELS = 10_000


def _scan(rest: tuple[float, float], **shares: float) -> np.ndarray:
    """Values (`v1000`, or `m50` for -50) by their shares; the rest is spread evenly over a range."""
    parts = [np.full(round(share * VOXELS), _value(name), np.float32) for name, share in shares.items()]
    left = VOXELS - sum(map(len, parts))
    hu = np.concatenate([*parts, np.linspace(*rest, left, dtype=np.float32)])
    return np.random.default_rng(1).permutation(hu).reshape(SHAPE)


def _value(name: str) -> float:
    return -float(name[1:]) if name[0] == "m" else float(name[1:])


def _why(hu: np.ndarray) -> str:
    """'' or why it is refused."""
    try:
        check_hounsfield(Path("scan.nii"), hu)
    except errors.NotHUError as error:
        return str(error)
    return ""


def _codes(hu: np.ndarray) -> list[str]:
    return [finding.code for finding in check_hounsfield(Path("scan.nii"), hu)]


LUNG, TISSUE, BODY = (-800.0, 200.0), (-45.0, 200.0), (-1000.0, 250.0)
CASES: dict[str, tuple[np.ndarray, str]] = {
    "a range of 60": (_scan((10, 70)), ""),
    "a range of less": (_scan((10, 69.9)), "normalised"),
    "a thousandth above the scale": (_scan(BODY, v40000=0.001), ""),
    "more above the scale": (_scan(BODY, v40000=0.0011), "unsigned"),
    "one voxel of a million": (_scan(BODY, v1000000=0.0001), ""),
    "one voxel beyond a million": (_scan(BODY, v1000001=0.0001), "unsigned"),
    "little near +1000": (_scan(LUNG, v1000=0.0199), ""),
    "more near +1000": (_scan(LUNG, v1000=0.0201), "inverted"),
    "at +850": (_scan(LUNG, v850=0.1), "inverted"),
    "below +850": (_scan(LUNG, v849=0.1), ""),
    "at +1250": (_scan(LUNG, v1250=0.1), "inverted"),
    "beyond +1250": (_scan(LUNG, v1251=0.1), ""),
    "as much bone near +300": (_scan(LUNG, v1000=0.1, v300=0.11), ""),
    "less bone": (_scan(LUNG, v1000=0.1, v300=0.09), "inverted"),
    "tissue below +300": (_scan(LUNG, v1000=0.1, v299=0.11), "inverted"),
    "air at -850": (_scan(LUNG, v1000=0.1, m850=0.0101), ""),
    "nearly air": (_scan(LUNG, v1000=0.1, m849=0.0101), "inverted"),
    "a hundredth of air": (_scan(LUNG, v1000=0.1, m850=0.01), "inverted"),
    "the lowest at -51": (_scan(TISSUE, v1000=0.1, m51=0.0001), "inverted"),
    "the lowest at -50": (_scan(TISSUE, v1000=0.1, m50=0.0001), "offset of 1024"),
    "zeros with a voxel of -300": (_scan(TISSUE, v0=0.4, m300=0.0001), ""),
    "zeros with a voxel of -299": (_scan(TISSUE, v0=0.4, m299=0.0001), "erased"),
    "a third of zeros": (_scan(TISSUE, v0=0.3, m250=0.0001), ""),
    "more zeros": (_scan(TISSUE, v0=0.3002, m250=0.0001), "erased"),
    "ones, which are no background": (_scan(TISSUE, v1=0.4, m250=0.0001), ""),
    "a background with a voxel of -200": (_scan(TISSUE, m195=0.3, m200=0.0001), ""),
    "a background with a voxel of -199": (_scan(TISSUE, m195=0.3, m199=0.0001), "background lies at -199"),
    "a fifth of background": (_scan((0, 200), m95=0.2, m100=0.0001), "background lies at -100"),
    "less background": (_scan((0, 200), m95=0.1995, m100=0.0001), ""),
    "a background that is wider than a twentieth": (_scan((0, 200), m84=0.3, m100=0.0001), ""),
    "a third at +1500": (_scan(BODY, v1500=0.3), ""),
    "more at +1500": (_scan(BODY, v1500=0.3002), "denser than bone"),
    "more below +1500": (_scan(BODY, v1499=0.3002), ""),
    "a thousandth of tissue": (_scan((-1000, -300), v40=0.001), ""),
    "less tissue": (_scan((-1000, -300), v40=0.0009), "soft tissue"),
    "fat at -250": (_scan((-1000, -300), m250=0.001), ""),
    "less than fat": (_scan((-1000, -300), m251=0.001), "soft tissue"),
    "contrast at +350": (_scan((-1000, -300), v350=0.001), ""),
    "more than contrast": (_scan((-1000, -300), v351=0.001), "soft tissue"),
}


@pytest.mark.parametrize("case", CASES)
def test_values_at_the_limits(case: str) -> None:
    hu, words = CASES[case]
    assert words in _why(hu)
    assert bool(_why(hu)) is bool(words)


@pytest.mark.parametrize(
    ("low", "share", "codes"),
    [
        ("m899", 0.06, ["clipped"]),
        ("m900", 0.06, []),
        ("m51", 0.06, ["clipped"]),
        ("m50", 0.06, []),
        ("m500", 0.0501, ["clipped"]),
        ("m500", 0.05, []),
    ],
)
def test_values_cut_off_above_air_are_said(low: str, share: float, codes: list[str]) -> None:
    assert _codes(_scan((_value(low) + 1, 200), **{low: share})) == codes


@pytest.mark.parametrize(("hu", "codes"), [(-900, []), (-899, ["blank_slices"])])
def test_an_end_of_one_value_is_air_or_was_lost(hu: float, codes: list[str]) -> None:
    scan = _scan(BODY)
    scan[..., -2:] = hu
    assert _codes(scan) == codes
    assert _codes(scan[..., ::-1]) == codes


def test_an_end_of_the_lowest_value_is_padding() -> None:
    scan = _scan((-400, 250))
    scan[..., 0] = -500
    assert _codes(scan) == []
    scan[..., 5:7] = -500
    assert "blank_slices" in _codes(scan)


@pytest.mark.parametrize(("leap", "said"), [(499, 0), (501, 1), (-499, 0), (-501, 1)])
@pytest.mark.parametrize("at", [1, 10, 19])
def test_a_rescale_that_changes_with_the_values(leap: float, said: int, at: int) -> None:
    hu = np.stack([np.full((20, 25), 0.0 if k < at else float(leap)) for k in range(20)], axis=-1)
    changing = [(1.0, 0.0 if k < at else 5.0, "HU") for k in range(20)]
    found = leap_findings(hu, changing)
    assert [finding.code for finding in found] == ["rescale_leap"] * said
    assert all(f"at 1 place(s), first between slices {at} and {at + 1}" in str(finding) for finding in found)
    assert leap_findings(hu, [(1.0, 0.0, "HU")] * 20) == ()


def test_the_darkest_twentieth_is_compared() -> None:
    """A few dark pixels, or a brighter body, are no leap."""
    hu = np.zeros((20, 25, 2))
    hu[..., 1] = 900
    hu[:3, :, 1] = 0
    assert leap_findings(hu, [(1.0, 0.0, "HU"), (1.0, 5.0, "HU")]) == ()
