"""Two results side by side: what changed is counted, and another day's scan is laid over this one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app.results import read_result
from app.scans import Scan, read_scan
from app.work.compare import GONE, NEW, OTHER, align, brought_here, compare
from medseg.imaging.volume import Geometry, Volume
from medseg.jobs.request import JobRequest
from medseg.runtime.progress import ignore
from tests.app.conftest import laid_out
from tests.phantoms import phantom_volume

VALUES = {"body": 1, "bone": 3}
CENTRES = np.array([[0.0, 0, 0], [40, 5, -10], [-30, 22, 14], [8, -36, 30], [-12, 9, -41]])


def compared(tmp_path: Path, here: SimpleNamespace, there: SimpleNamespace) -> tuple[dict[str, object], np.ndarray]:
    out = tmp_path / "out"
    out.mkdir()
    extra = {
        "scan": str(here.scan),
        "result": str(here.result),
        "other_scan": str(there.scan),
        "other_result": str(there.result),
    }
    compare(JobRequest(here.path, out, extra=extra), ignore)
    return json.loads((out / "comparison.json").read_text()), np.load(out / "difference.npy")


def with_mask(ready: SimpleNamespace, folder: Path, mask: np.ndarray) -> SimpleNamespace:
    """The same scan with another mask, as a result of its own."""
    import shutil

    shutil.copytree(ready.result, folder)
    np.save(folder / "page" / "mask.npy", np.asfortranarray(mask))
    return SimpleNamespace(path=ready.path, scan=ready.scan, result=folder)


def test_what_came_what_went_and_what_changed_hands(ready: SimpleNamespace, tmp_path: Path) -> None:
    values = {row.name: row.value for row in read_result(ready.result).organs}
    shape = read_result(ready.result).mask().shape
    mine, theirs = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    mine[5:15, 5:15, 5:15] = values["bone"]
    theirs[8:15, 5:15, 5:15] = values["bone"]
    theirs[15:18, 5:15, 5:15] = values["bone"]
    theirs[5:6, 5:15, 5:15] = values["fat"]
    mine[20:22, 5:15, 5:15] = values["fat"]
    facts, difference = compared(
        tmp_path, with_mask(ready, tmp_path / "mine", mine), with_mask(ready, tmp_path / "theirs", theirs)
    )
    assert facts["kind"] == "same grid"
    dice = {row["name"]: row["dice"] for row in facts["organs"]}  # type: ignore[attr-defined]
    assert dice["bone"] == pytest.approx(2 * 700 / (1000 + 1000))
    assert dice["fat"] == 0
    assert dice["lungs"] is None
    assert (difference[15:18, 5:15, 5:15] == GONE).all()
    assert (difference[6:8, 5:15, 5:15] == NEW).all()
    assert (difference[5, 5:15, 5:15] == OTHER).all()
    assert (difference[20:22, 5:15, 5:15] == NEW).all()
    assert (difference != 0).sum() == (3 + 2 + 1 + 2) * 100


def rows(centres: np.ndarray, *, edge: bool = False) -> tuple[SimpleNamespace, ...]:
    return tuple(
        SimpleNamespace(name=f"o{n}", value=n + 1, volume_ml=1.0, touches_edge=edge) for n in range(len(centres))
    )


def dots(scan: Scan, centres_mm: np.ndarray, *, edge: bool = False) -> SimpleNamespace:
    """A result whose organs are small cubes around places (RAS mm)."""
    mask = np.zeros(scan.shape, np.uint8, order="F")
    for number, centre in enumerate(centres_mm):
        voxel = scan.voxel_at(tuple(centre))
        assert voxel is not None
        mask[tuple(slice(v - 1, v + 2) for v in voxel)] = number + 1
    return SimpleNamespace(organs=rows(centres_mm, edge=edge), mask=lambda: mask)


def scan_at(origin: tuple[float, float, float], digest: str = "a") -> Scan:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = origin
    shape = [140, 140, 140]
    facts = {"shape": shape, "spacing_mm": [1, 1, 1], "affine": affine.tolist(), "sha256": digest}
    return Scan(Path("nowhere"), facts)


def test_another_days_scan_is_turned_and_shifted_onto_this_one() -> None:
    angle = np.deg2rad(9)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    shift = np.array([12.0, -7.0, 20.0])
    here, there = scan_at((-70, -70, -70)), scan_at((-60, -75, -50), "b")
    theirs = CENTRES @ turn.T + shift
    found = align(here, dots(here, CENTRES), there, dots(there, theirs))  # type: ignore[arg-type]
    assert found.kind == "rigid"
    assert found.residual_mm < 1.0
    assert np.allclose(found.matrix[:3, :3], turn, atol=0.02)
    assert np.allclose(found.matrix[:3, 3], shift, atol=1.0)
    back = brought_here(dots(there, theirs).mask(), there, here, found)
    for number, centre in enumerate(CENTRES):
        assert back[here.voxel_at(tuple(centre))] == number + 1


def test_few_organs_shift_and_none_leave_the_scanners_coordinates() -> None:
    here, there = scan_at((-70, -70, -70)), scan_at((-70, -70, -70), "b")
    moved = CENTRES[:2] + np.array([5, 0, -3])
    found = align(here, dots(here, CENTRES[:2]), there, dots(there, moved))  # type: ignore[arg-type]
    assert (found.kind, found.residual_mm) == ("shift", 0.0)
    assert np.allclose(found.matrix[:3, 3], [5, 0, -3])
    cut = align(here, dots(here, CENTRES, edge=True), there, dots(there, CENTRES))  # type: ignore[arg-type]
    assert cut.kind == "none"
    assert np.allclose(cut.matrix, np.eye(4))


def test_a_prior_scan_on_another_grid_is_compared_through_the_alignment(ready: SimpleNamespace, tmp_path: Path) -> None:
    now = phantom_volume(noise_hu=0)
    affine = now.affine.copy()
    affine[:3, 3] += [15, -20, 40]
    folder = tmp_path / "prior"
    folder.mkdir()
    prior = laid_out(folder, Volume(now.hu, Geometry(now.geometry.shape, affine)))
    facts, difference = compared(tmp_path, ready, prior)
    assert facts["kind"] in ("shift", "rigid")
    assert np.allclose(np.array(facts["matrix"])[:3, 3], [15, -20, 40], atol=0.5)
    assert {row["dice"] for row in facts["organs"] if row["dice"] is not None} == {1.0}  # type: ignore[attr-defined]
    assert not difference.any()


def test_a_scan_is_compared_voxel_by_voxel_only_with_itself(ready: SimpleNamespace) -> None:
    scan, result = read_scan(ready.scan), read_result(ready.result)
    assert scan is not None
    other = replace(scan, facts=scan.facts | {"sha256": "another"})
    assert align(scan, result, scan, result).kind == "same grid"
    assert align(scan, result, other, result).kind != "same grid"
