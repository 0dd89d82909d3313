"""With a threshold as network: masks on the scan's own grid, in every orientation, in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.imaging.volume import Geometry, Volume
from medseg.inference.memory import TileCost
from medseg.inference.segmenter import NetworkSegmenter, Segmenter, build_segmenter
from medseg.models.store import load_model
from medseg.results.measure import measure
from medseg.runtime.options import Options
from medseg.runtime.provenance import StageClock
from tests.inference.planted import (
    COLD_HU,
    HOT_HU,
    ORIGIN_MM,
    WATER_HU,
    centre_mm,
    planted_labels,
    planted_volume,
    rotated_volume,
    threshold_card,
    write_package,
)
from tests.phantoms import BOX_CENTRE_MM, BOX_ML, ORIENTATIONS, SPHERE_CENTRE_MM, SPHERE_ML, orient

# Name, shape and spacing of the RAS grid; the model's spacing is 4 mm.
GRIDS = {
    "same": ((28, 26, 24), (4.0, 4.0, 4.0)),
    "finer": ((43, 51, 37), (2.5, 2.0, 2.7)),
    "coarser": ((24, 20, 23), (4.6, 5.2, 4.1)),
    "anisotropic": ((58, 52, 20), (1.9, 1.9, 5.0)),
}


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return build_segmenter(load_model(write_package(tmp_path_factory.mktemp("shelf") / "threshold")))


def run(segmenter: Segmenter, volume: Volume) -> np.ndarray:
    raw = segmenter(volume, StageClock())
    assert raw.label_map.geometry is volume.geometry
    assert raw.label_map.labels.shape == raw.label_map.confidence.shape == volume.geometry.shape
    return raw.label_map.labels


def on_a_couch(volume: Volume) -> Volume:
    """The same water in air, on a plate of 6 mm."""
    wide, at = [n + 2 * 16 for n in volume.geometry.shape], volume.geometry.affine.copy()
    at[:3, 3] -= at[:3, :3] @ [16, 16, 16]
    hu = np.full(wide, -1000.0, np.float32)
    hu[16:-16, 16:-16, 16:-16] = volume.hu
    hu[:, 12, :] = 300.0
    return Volume(hu, Geometry((wide[0], wide[1], wide[2]), at), name=volume.name)


def test_fitted_windows_find_the_same_in_any_orientation(tmp_path: Path) -> None:
    wanted = threshold_card().input
    assert wanted is not None
    card = threshold_card(input=wanted.model_copy(update={"fitted": True}))
    # By one backend, not by what is fastest on a busy machine: others round a voxel at the threshold otherwise.
    way = Options(backend="torch", precision="fp32")
    fitted = build_segmenter(load_model(write_package(tmp_path / "m", card)), way)
    segmenter = build_segmenter(load_model(write_package(tmp_path / "plain")), way)
    volume = on_a_couch(planted_volume((43, 51, 37), (2.5, 2.0, 2.7)))
    reference = run(fitted, volume)
    inner = (slice(18, -18),) * 3  # at the skin and on the couch partial volumes look like the cold organ
    np.testing.assert_array_equal(reference[inner], run(segmenter, volume)[inner])
    for orientation in ORIENTATIONS[::5]:
        expected = orient(Volume(reference, volume.geometry), orientation).hu
        np.testing.assert_array_equal(run(fitted, orient(volume, orientation)), expected, err_msg=orientation)
    for each in (fitted, segmenter):
        assert isinstance(each, NetworkSegmenter)
        each.costs = lambda: (TileCost(1.0, 10.0),)
    fewer, more = fitted.forecast(volume), segmenter.forecast(volume)
    assert fewer is not None
    assert more is not None
    assert fewer.seconds < more.seconds


@pytest.mark.parametrize("grid", GRIDS)
def test_48_orientations_give_the_same_mask_bit_for_bit(segmenter: Segmenter, grid: str) -> None:
    volume = planted_volume(*GRIDS[grid])
    reference = run(segmenter, volume)
    assert set(np.unique(reference)) == {0, 1, 2}
    for orientation in ORIENTATIONS:
        turned = orient(volume, orientation)
        expected = orient(Volume(reference, volume.geometry), orientation).hu
        np.testing.assert_array_equal(run(segmenter, turned), expected, err_msg=orientation)


def test_on_the_models_own_grid_the_mask_is_what_was_planted(segmenter: Segmenter) -> None:
    volume = planted_volume(*GRIDS["same"], orientation="PIR")
    np.testing.assert_array_equal(run(segmenter, volume), planted_labels(volume))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SPR", "ILA"])
@pytest.mark.parametrize("grid", GRIDS)
def test_left_is_left_and_volumes_are_right(segmenter: Segmenter, grid: str, orientation: str) -> None:
    volume = planted_volume(*GRIDS[grid], orientation=orientation)
    raw = segmenter(volume, StageClock())
    left, right = measure(raw.label_map, volume, segmenter.labels)
    assert centre_mm(raw.label_map.labels, volume.geometry, 1)[0] < ORIGIN_MM[0] - 25
    assert centre_mm(raw.label_map.labels, volume.geometry, 2)[0] > ORIGIN_MM[0] + 25
    planted = np.bincount(planted_labels(volume).ravel()) * volume.geometry.voxel_ml
    # Voxels of 4 mm shave convex surfaces and corners a little.
    assert left.volume_ml == pytest.approx(planted[1], rel=0.06)
    assert right.volume_ml == pytest.approx(planted[2], rel=0.08)
    assert left.volume_ml == pytest.approx(SPHERE_ML, rel=0.07)
    assert left.mean_hu is not None
    assert right.mean_hu is not None
    assert left.mean_hu == pytest.approx(HOT_HU, abs=25)
    assert right.mean_hu == pytest.approx(COLD_HU, abs=25)


@pytest.mark.parametrize(("planted", "place"), [("sphere", SPHERE_CENTRE_MM), ("box", BOX_CENTRE_MM)])
@pytest.mark.parametrize("angle_deg", [10.0, 30.0])
def test_oblique_scans_keep_organs_in_place(
    segmenter: Segmenter, angle_deg: float, planted: str, place: tuple[float, float, float]
) -> None:
    # Only hot organs: beyond a turned scan lies air, which this network calls cold.
    levels = {"sphere_hu": WATER_HU, "box_hu": WATER_HU} | {f"{planted}_hu": HOT_HU}
    volume = rotated_volume(angle_deg, **levels)
    mask = run(segmenter, volume)
    found = centre_mm(mask, volume.geometry, 1)
    np.testing.assert_allclose(found, np.add(place, ORIGIN_MM), atol=0.6)
    expected, shaved = (SPHERE_ML, 0.1) if planted == "sphere" else (BOX_ML, 0.15)
    assert (mask == 1).sum() * volume.geometry.voxel_ml == pytest.approx(expected, rel=shaved)


def test_an_organ_that_runs_out_of_thin_slices_reaches_the_last_of_them(tmp_path: Path) -> None:
    """Model voxels of 4 mm end up to 2 mm inside the scan; slices of half a millimetre go on."""
    segmenter = build_segmenter(load_model(write_package(tmp_path / "m", threshold_card((4.0, 4.0, 4.0)))))
    volume = planted_volume((24, 24, 64), (4.0, 4.0, 0.5), sphere_hu=WATER_HU, box_hu=WATER_HU)
    volume.hu[8:14, 8:14, :] = HOT_HU
    for orientation in ("RAS", "SPL"):
        turned = orient(volume, orientation)
        raw = segmenter(turned, StageClock())
        row = measure(raw.label_map, turned, segmenter.labels)[0]
        assert (row.slices, row.touches_edge) == (64, True)
        assert row.volume_ml == pytest.approx(24 * 24 * 32 / 1000, rel=0.1)


def test_a_small_part_beside_a_large_one_stays_where_the_card_says_so(tmp_path: Path) -> None:
    volume = planted_volume((24, 24, 24), (4.0, 4.0, 4.0), sphere_hu=WATER_HU, box_hu=WATER_HU)
    volume.hu[4:14, 4:14, 4:14] = HOT_HU
    volume.hu[18:20, 18:20, 18:20] = HOT_HU
    for keep, voxels in ((False, 1000), (True, 1008)):
        card = threshold_card((4.0, 4.0, 4.0), keep_islands=keep)
        segmenter = build_segmenter(load_model(write_package(tmp_path / str(keep), card)))
        assert np.count_nonzero(run(segmenter, volume) == 1) == voxels
