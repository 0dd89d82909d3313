"""Forecasts are arithmetic that can be checked; plans keep the limit or say by how much they cannot."""

from __future__ import annotations

import mmap
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from medseg.errors import ResourceError
from medseg.imaging.volume import Geometry, Volume
from medseg.inference.memory import (
    KEPT,
    Job,
    TileCost,
    fit,
    forecast,
    measure_tiles,
    occupied_by,
    prepare_bytes,
    resident_mb,
)
from medseg.models.card import InputSpec
from medseg.preprocess.prepare import prepare
from medseg.runtime.room import free_mb, total_mb

SPEC = InputSpec(spacing_mm=(1.5, 1.5, 1.5), window_hu=(-300, 900), patch_size=(64, 64, 64), overlap_ratio=0.3)
TILE = TileCost(seconds=0.5, memory_mb=200.0)


def grid(*shape: int, step_mm: float = 0.75) -> Geometry:
    i, j, k = shape
    return Geometry((i, j, k), np.diag([step_mm, step_mm, 1.5, 1.0]))


def test_more_classes_and_a_larger_plane_take_more_and_a_longer_scan_hardly() -> None:
    small = forecast(Job(grid(512, 512, 100), SPEC, 8), TILE, 500)
    many = forecast(Job(grid(512, 512, 100), SPEC, 117), TILE, 500)
    long = forecast(Job(grid(512, 512, 200), SPEC, 117), TILE, 500)
    sums_mb = 117 * 256 * 256 * 64 * 4 / 2**20
    assert many.memory_mb - small.memory_mb > 0.9 * sums_mb
    assert long.memory_mb - many.memory_mb < 0.2 * sums_mb
    assert long.seconds > 1.7 * many.seconds


def test_the_plane_is_cut_to_keep_a_limit() -> None:
    free = fit(Job(grid(512, 512, 300), SPEC, 117), [TILE], 500, None)
    tight = fit(Job(grid(512, 512, 300), SPEC, 117), [TILE], 500, 2000)
    assert free.parts < tight.parts
    assert free.memory_mb > 2000 >= tight.memory_mb
    assert tight.seconds > free.seconds


def test_without_a_limit_what_is_free_decides_and_nothing_is_refused() -> None:
    scan = Job(grid(512, 512, 300), SPEC, 117)
    roomy, tight, none = (fit(scan, [TILE], 500, None, free_mb=free) for free in (64_000, 1400, 10))
    assert roomy.memory_mb > 500 + 1400 >= tight.memory_mb
    assert none.memory_mb == min(forecast(scan, TILE, 500, (n, n)).memory_mb for n in range(1, 9))
    assert 0 < free_mb() <= psutil.virtual_memory().total / 2**20


def test_without_a_limit_a_little_time_is_given_for_much_memory() -> None:
    scan = Job(grid(512, 512, 300), SPEC, 117)
    plans = [forecast(scan, TILE, 500, parts) for parts in ((1, 1), (1, 2), (2, 2))]
    free = fit(scan, [TILE], 500, None)
    assert free in plans[1:]
    assert free.memory_mb < 0.7 * plans[0].memory_mb
    assert free.seconds <= 1.2 * plans[0].seconds
    assert fit(scan, [TILE], 500, 1e6) == plans[0]  # a limit says that it may be used


def test_a_region_smaller_than_a_window_is_forecast_as_one() -> None:
    scan = grid(256, 256, 200)
    small = Job(scan, SPEC, 117, searched=(slice(0, 4), slice(0, 4), slice(0, 4)))
    window = Job(scan, SPEC, 117, searched=tuple(slice(0, n) for n in SPEC.patch_size))  # type: ignore[arg-type]
    assert small.held() == window.held()
    assert forecast(small, TILE, 500) == forecast(window, TILE, 500)


def test_fitted_windows_hold_the_body_alone_and_others_perhaps_the_whole_plane() -> None:
    scan, body = grid(512, 512, 200), (slice(60, 190), slice(70, 160), slice(0, 200))
    fitted = SPEC.model_copy(update={"fitted": True})
    certain, rough = Job(scan, fitted, 117, body=body), Job(scan, SPEC, 117, body=body)
    assert certain.held() == certain.visited() == (130 + 16, 90 + 16, 200)
    assert rough.held() == (256, 256, 200)
    assert forecast(certain, TILE, 500).memory_mb < 0.6 * forecast(rough, TILE, 500).memory_mb
    assert Job(scan, fitted, 117).held() == (256, 256, 200)


def test_a_limit_that_no_plan_keeps_is_refused_with_both_figures() -> None:
    with pytest.raises(ResourceError, match=r"needs about \d\.\d\d GB of memory, and 0\.59 GB are allowed"):
        fit(Job(grid(512, 512, 300), SPEC, 117), [TILE], 500, 600)


def test_a_limit_is_planned_with_but_for_what_no_forecast_sees() -> None:
    scan = Job(grid(512, 512, 300), SPEC, 117)
    free = fit(scan, [TILE], 500, 1e6).memory_mb
    exact, roomy = fit(scan, [TILE], 500, free), fit(scan, [TILE], 500, free / KEPT + 1)
    assert exact.memory_mb <= KEPT * free
    assert roomy.memory_mb == free


def test_a_forecast_reads_as_a_sentence_and_as_json() -> None:
    plan = forecast(Job(grid(64, 64, 64), SPEC, 3), TILE, 500)
    assert str(plan).startswith("about ")
    assert str(plan).endswith(" GB")
    assert plan.to_json() == {"memory_mb": plan.memory_mb, "seconds": plan.seconds, "parts": (1, 1), "batch": 1}


def test_the_largest_batch_that_keeps_the_limit_is_taken_where_it_is_faster() -> None:
    tiles = [TileCost(0.5, 200, 1), TileCost(0.3, 400, 2), TileCost(0.25, 3000, 4)]
    scan = Job(grid(512, 512, 300), SPEC, 8)
    plans = {limit: fit(scan, tiles, 500, limit) for limit in (1e6, 3000, 1150)}
    assert [plan.batch for plan in plans.values()] == [4, 2, 1]
    assert all(plan.memory_mb <= limit for limit, plan in plans.items())
    assert fit(scan, [TileCost(0.5, 200, 1), TileCost(0.6, 400, 2)], 500, None).batch == 1


def test_nothing_but_deciding_takes_neither_image_nor_copies() -> None:
    whole, bare = (forecast(Job(grid(512, 512, 800), SPEC, 3, bare=bare), TILE, 500) for bare in (False, True))
    assert whole.memory_mb - bare.memory_mb > 3 * 512 * 512 * 800 / 2**20
    assert whole.seconds == bare.seconds


SCANS = {
    "finer": ((200, 180, 160), (1, 1, 1), (2, 2, 2), 0, "window"),
    "finer along one axis": ((100, 100, 400), (2, 2, 1), (2, 2, 3), 0, "window"),
    "on the model's grid": ((200, 180, 160), (1, 1, 1), (1, 1, 1), 0, "window"),
    "coarser": ((100, 100, 60), (2, 2, 5), (2, 2, 2), 0, "window"),
    "finer and coarser": ((200, 200, 60), (1, 1, 5), (2, 2, 2), 0, "window"),
    "oblique": ((160, 160, 100), (1, 1, 1), (1.5, 1.5, 1.5), 25, "window"),
    "standardised": ((160, 160, 100), (1, 1, 1), (1, 1, 1), 0, "z-score"),
    "splines": ((160, 160, 100), (1, 1, 1), (1.5, 1.5, 1.5), 0, "nnunet-z-score"),
}


@pytest.mark.parametrize("name", list(SCANS))
def test_preparing_holds_no_more_than_was_said_and_not_much_less(name: str) -> None:
    shape, step_mm, wanted_mm, angle_deg, intensity = SCANS[name]
    affine = np.diag([*step_mm, 1.0])
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    affine[:2] = np.array([[cos, -sin], [sin, cos]]) @ affine[:2]
    volume = Volume(np.random.default_rng(0).normal(0, 300, shape).astype(np.float32), Geometry(shape, affine))
    spec = InputSpec(
        spacing_mm=wanted_mm, window_hu=(-300, 900), patch_size=(64, 64, 64), overlap_ratio=0.3, intensity=intensity
    )
    tracemalloc.start()
    prepare(volume, spec.spacing_mm, spec.window_hu, spec.intensity)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.01 * prepare_bytes(Job(volume.geometry, spec, 3)) <= 2.1 * peak


def test_a_tiles_memory_is_what_its_network_holds() -> None:
    def hungry(tile: Tensor) -> Tensor:
        held = torch.ones(64 * 2**20 // 4)
        return tile * held[0]

    (cost,) = measure_tiles(hungry, (32, 32, 32))
    assert 50 < cost.memory_mb < 120
    assert cost.seconds > 0
    assert resident_mb() > 50


def test_a_mapped_scan_counts_before_anybody_has_looked_at_it() -> None:
    shared = mmap.mmap(-1, 64 * 2**20)
    hu = np.frombuffer(shared, np.float32).reshape((256, 256, 256), order="F")
    before = resident_mb()
    assert 60 < occupied_by(hu) - before < 80


def test_a_batch_that_does_not_fit_is_left_out_and_no_larger_one_tried() -> None:
    seen = []

    def small(tiles: Tensor) -> Tensor:
        seen.append(len(tiles))
        if len(tiles) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return tiles

    assert [cost.batch for cost in measure_tiles(small, (8, 8, 8), (1, 2, 4, 8))] == [1, 2]
    assert max(seen) == 4
    with pytest.raises(torch.OutOfMemoryError):
        measure_tiles(small, (8, 8, 8), (4,))


@pytest.mark.parametrize(("limit", "free", "total"), [("1048576000", 900, 1000), ("max", None, None)])
def test_a_containers_limit_is_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, free: float | None, total: float | None
) -> None:
    monkeypatch.setattr("medseg.runtime.room._GROUPS", tmp_path)
    monkeypatch.setattr("medseg.runtime.room._OWN", tmp_path / "none")
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text("125829120\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 20971520\n")  # makes room when it is asked for
    assert total_mb() == (total or psutil.virtual_memory().total / 2**20)
    assert free_mb() == free if free else free_mb() > 0


@pytest.mark.parametrize(
    ("own", "limited", "files"),
    [
        ("0::/jobs/7/step\n", "jobs/7", ("memory.max", "memory.current")),
        ("9:cpu:/\n4:hugetlb,memory:/jobs/7\n", "memory/jobs/7", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_a_jobs_limit_holds_for_what_runs_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, limited: str, files: tuple[str, str]
) -> None:
    monkeypatch.setattr("medseg.runtime.room._GROUPS", tmp_path)
    monkeypatch.setattr("medseg.runtime.room._OWN", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text(own)
    group = tmp_path / limited
    (group / "step").mkdir(parents=True)
    for name, megabytes in zip(files, (1000, 100), strict=True):
        (group / name).write_text(f"{megabytes * 2**20}\n")
    assert (total_mb(), free_mb()) == (1000, 900)
