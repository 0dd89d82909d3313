"""A quick model before a slow one: the same organs, fewer windows, and a word on where was searched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import medseg
from medseg.errors import ConfigError, ResourceError
from medseg.imaging.volume import Array, Geometry, Volume
from medseg.inference.localise import LocalisedSegmenter
from medseg.inference.memory import Forecast, TileCost
from medseg.inference.region import Region, body_region, patient_region
from medseg.inference.segmenter import NetworkSegmenter, build_segmenter
from medseg.inference.warm import warm_segmenter
from medseg.labels import LabelTable
from medseg.models.store import load_model
from medseg.runtime.options import Options
from medseg.runtime.provenance import StageClock
from tests.inference.planted import planted_volume, threshold_card, write_package


def model(folder: Path, step_mm: float, seconds: float, **changes: object) -> NetworkSegmenter:
    """The threshold network at a spacing, with a cost that is not measured."""
    card = threshold_card((step_mm,) * 3, name=f"at{step_mm:g}mm", **changes)
    segmenter = build_segmenter(load_model(write_package(folder / f"{step_mm:g}mm", card)))
    assert isinstance(segmenter, NetworkSegmenter)
    segmenter.costs = lambda: (TileCost(seconds, 10.0),)
    return segmenter


def in_a_long_scan() -> Volume:
    """Sphere and box in the upper quarter of water that goes on for half a metre below them."""
    short = planted_volume((40, 36, 40), (4.0, 4.0, 4.0))
    below = np.full((40, 36, 120), 40.0, np.float32)
    affine = short.affine.copy()
    affine[:3, 3] -= affine[:3, 2] * 120
    return Volume(np.concatenate([below, short.hu], axis=2), Geometry((40, 36, 160), affine), name="long")


def counted(segmenter: NetworkSegmenter) -> list[int]:
    """The windows that a segmenter computes from now on."""
    seen: list[int] = []
    plain = segmenter.predict

    def predict(tiles: Tensor) -> Tensor:
        seen.append(len(tiles))
        return plain(tiles)

    segmenter.predict = predict
    return seen


def test_only_the_part_with_the_organs_is_computed_and_the_mask_is_the_same(tmp_path: Path) -> None:
    quick, full = model(tmp_path, 8, 0.001), model(tmp_path, 3, 1.0)
    volume = in_a_long_scan()
    windows = counted(full)
    alone = full(volume, StageClock())
    everywhere = len(windows)
    windows.clear()
    localised = LocalisedSegmenter(quick, full)(volume, StageClock())
    assert alone.label_map.labels.any()
    np.testing.assert_array_equal(localised.label_map.labels, alone.label_map.labels)
    assert len(windows) < 0.6 * everywhere
    assert [finding.code for finding in localised.findings] == ["localised"]
    assert "at8mm@1.2.3 found parotid gland left" in localised.findings[0].message
    assert localised.forecast is not None
    assert alone.forecast is not None
    assert localised.forecast.seconds < 0.8 * alone.forecast.seconds


def test_where_nothing_is_found_the_whole_scan_is_searched(tmp_path: Path) -> None:
    quick, full = model(tmp_path, 8, 0.001), model(tmp_path, 3, 1.0)
    water = planted_volume((28, 26, 24), (4.0, 4.0, 4.0), sphere_hu=40.0, box_hu=40.0)
    windows = counted(full)
    raw = LocalisedSegmenter(quick, full)(water, StageClock())
    assert windows
    assert raw.findings[0].code == "not_localised"
    assert "found none of the organs" in raw.findings[0].message


def test_a_localiser_that_saves_nothing_is_not_asked(tmp_path: Path) -> None:
    quick, full = model(tmp_path, 4, 1.0), model(tmp_path, 5, 1.0)
    asked = counted(quick)
    raw = LocalisedSegmenter(quick, full)(planted_volume((28, 26, 24), (4.0, 4.0, 4.0)), StageClock())
    assert not asked
    assert "would save no time" in raw.findings[0].message
    assert raw.label_map.labels.any()


def test_a_limit_that_the_whole_scan_would_break_is_kept_by_a_part_of_it(tmp_path: Path) -> None:
    quick, full = model(tmp_path, 8, 0.001), model(tmp_path, 1.5, 1.0)
    volume = in_a_long_scan()
    shares: list[float] = []
    foretold = full.forecast

    def tight(volume: Volume, options: Options | None = None, within: Region | None = None) -> Forecast:
        if options is not None and within is None:
            raise ResourceError("the whole scan does not fit")
        return foretold(volume, options, within)

    full.forecast = tight  # type: ignore[method-assign]
    raw = LocalisedSegmenter(quick, full)(
        volume, StageClock(), lambda p: shares.append(p.fraction), Options(max_memory_mb=1e6)
    )
    assert raw.findings[0].code == "localised"
    assert shares == sorted(shares)
    assert sum(0.05 <= share < 0.08 for share in shares) > 2


def test_models_without_a_common_organ_or_a_network_are_no_pair(tmp_path: Path) -> None:
    other = LabelTable.from_names({"larynx": 1, "mandible": 2}).to_json()
    quick, full = model(tmp_path, 8, 0.001, labels=other), model(tmp_path, 3, 1.0)
    with pytest.raises(ConfigError, match="knows none of the organs"):
        LocalisedSegmenter(quick, full)
    with pytest.raises(ConfigError, match=r"tissue-hu.*has no network"):
        warm_segmenter(str(tmp_path / "3mm"), Options("torch", "fp32", localiser="tissue-hu"))


def test_segment_takes_a_localiser_by_name_and_forecasts(tmp_path: Path) -> None:
    model(tmp_path, 8, 0.001), model(tmp_path, 3, 1.0)
    options = Options("torch", "fp32", localiser=str(tmp_path / "8mm"))
    volume = in_a_long_scan()
    foretold = medseg.forecast(volume, model=str(tmp_path / "3mm"), options=options)
    result = medseg.segment(volume, model=str(tmp_path / "3mm"), options=options)
    assert foretold is not None
    assert foretold.seconds > 0
    assert result.findings[0].code in ("localised", "not_localised")
    assert result.mask.any()
    assert medseg.forecast(volume, model="tissue-hu") is None
    assert options.way.endswith(f"localiser {tmp_path / '8mm'}")
    assert replace(options, localiser=None).way == "torch fp32"


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR"])
def test_a_region_is_found_on_any_grid_of_the_scan(orientation: str) -> None:
    volume = planted_volume((20, 22, 24), (4.0, 4.0, 5.0), orientation=orientation)
    mask = np.zeros(volume.hu.shape, bool)
    mask[5:9, 6:12, 7:8] = True
    region = Region.around(mask, volume.geometry)
    assert region is not None
    assert region.on(volume.geometry, 0.0) == (slice(4, 10), slice(5, 13), slice(6, 9))
    box = region.on(volume.geometry.canonical(), 10.0)
    lengths = sorted(side.stop - side.start for side in box)
    assert lengths[0] >= 1 + 2 * 2
    assert all(
        0 <= side.start < side.stop <= size for side, size in zip(box, volume.geometry.canonical().shape, strict=True)
    )


def test_the_body_is_what_is_denser_than_air() -> None:
    hu = np.full((40, 40, 40), -1000.0, np.float32)
    hu[8:25, 12:29, 16:33] = 40.0
    geometry = Geometry((40, 40, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
    body = body_region(hu, geometry, -300.0)
    assert body is not None
    for side, (low, high) in zip(body.on(geometry, 0.0), ((8, 25), (12, 29), (16, 33)), strict=True):
        assert low - 3 <= side.start <= low + 1
        assert high - 3 <= side.stop <= high + 3
    assert body_region(np.full((8, 8, 8), -1000.0, np.float32), Geometry((8, 8, 8), np.eye(4)), -300.0) is None


def box_of(hu: Array, spacing_mm: tuple[float, float, float] = (4.0, 4.0, 4.0)) -> list[tuple[int, int]]:
    """First and last voxel, exclusive, of the patient along each axis, without the voxel of slack on either side."""
    geometry = Geometry(hu.shape[:3], np.diag([*spacing_mm, 1.0]))
    region = patient_region(hu, geometry)
    assert region is not None
    box = region.on(geometry, 0.0)
    return [(side.start + (side.start > 0), side.stop - (side.stop < n)) for side, n in zip(box, hu.shape, strict=True)]


def air(*shape: int) -> Array:
    return np.full(shape, -1000.0, np.float32)


def test_couch_mask_and_wires_are_no_patient() -> None:
    hu = air(80, 60, 30)
    hu[20:50, 20:40, 10:] = 40.0  # up to the scan's upper end
    hu[5:75, 41:43] = 200.0  # a shell below
    hu[5:75, 43:50] = -940.0  # its foam
    hu[5:75, 50:52] = 200.0
    hu[16:18, 20:40, 10:] = 100.0  # a mask before the face
    hu[70, 5, :] = 2000.0
    assert box_of(hu) == [(20, 50), (20, 40), (10, 30)]


def test_a_thin_chest_wall_does_not_lose_the_lungs() -> None:
    hu = air(80, 60, 30)
    hu[9:71, 14:46] = 40.0
    hu[11:69, 16:44] = -850.0
    hu[35:45, 20:44] = 40.0  # the heart
    (left, right), (front, back), _ = box_of(hu)
    assert left <= 11
    assert right >= 69
    assert front <= 16
    assert back >= 44


def test_a_scan_of_lungs_alone_is_all_patient() -> None:
    hu = np.full((40, 40, 40), -820.0, np.float32)
    hu[18:30, 18:30] = 40.0
    assert box_of(hu) == [(0, 40)] * 3


def test_two_legs_are_one_patient_and_a_fleck_is_none() -> None:
    hu = air(60, 30, 40)
    hu[5:20, 8:22] = 40.0
    hu[40:55, 8:22] = 40.0
    hu[28:32, 25:29, 5:9] = 40.0
    assert box_of(hu) == [(5, 55), (8, 22), (0, 40)]


@pytest.mark.parametrize("slices", [1, 2])
def test_a_scan_of_few_slices_has_a_patient(slices: int) -> None:
    hu = air(60, 60, slices)
    hu[10:40, 15:45] = 40.0
    assert box_of(hu, (4.0, 4.0, 5.0)) == [(10, 40), (15, 45), (0, slices)]


@pytest.mark.parametrize("mm", [0.7, 1.5, 5.0])
def test_the_patient_is_where_it_is_at_any_spacing(mm: float) -> None:
    hu = air(90, 90, 90)
    hu[30:70, 24:66, 12:80] = 40.0
    for (low, high), (first, last) in zip(box_of(hu, (mm,) * 3), ((30, 70), (24, 66), (12, 80)), strict=True):
        assert abs(low - first) * mm <= max(4.0, mm)
        assert abs(high - last) * mm <= max(4.0, mm)


def test_air_holds_no_patient() -> None:
    assert patient_region(air(9, 9, 9), Geometry((9, 9, 9), np.eye(4))) is None


def test_an_organ_that_the_quick_model_missed_is_named(tmp_path: Path) -> None:
    """Elsewhere in the scan nobody looked for it."""
    quick, full = model(tmp_path, 8, 0.001), model(tmp_path, 3, 1.0)
    volume = in_a_long_scan()
    plain = quick.predict

    def one_sided(tiles: Tensor) -> Tensor:
        logits = plain(tiles).clone()
        logits[:, quick.labels["parotid_gland_right"].value] = -100
        return logits

    quick.predict = one_sided
    (finding,) = LocalisedSegmenter(quick, full)(volume, StageClock()).findings
    assert (finding.code, finding.severity) == ("localised", "warning")
    assert "found parotid gland left. What lies outside" in finding.message
    assert finding.message.endswith("maybe of parotid gland right.")
