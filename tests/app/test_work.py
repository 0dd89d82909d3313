"""What the page's processes do beside the segmentation: surfaces, previews, forecasts, cancelled jobs."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app.results import read_result
from app.scans import Scan, read_scan
from app.slices import slice_png
from app.work import tasks
from app.work.forecast import _foretold
from app.work.look import look
from app.work.preview import WORTH_S, write_preview
from app.work.reading import read
from app.work.segment import histograms, segment
from medseg.errors import Cancelled, ScanChangedError
from medseg.examples import example_path
from medseg.imaging import read_volume
from medseg.jobs.request import JobRequest
from medseg.runtime.progress import Progress, ignore
from tests.app.conftest import box_mask
from tests.phantoms import ROD_RADIUS_MM, phantom_volume, write_nifti


def read_mz3(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = path.read_bytes()
    magic, attributes, faces, points, skip = struct.unpack("<HHIII", content[:16])
    assert (magic, attributes, skip) == (23117, 3, 0)
    triangles = np.frombuffer(content, "<i4", 3 * faces, 16).reshape(-1, 3)
    return triangles, np.frombuffer(content, "<f4", 3 * points, 16 + 12 * faces).reshape(-1, 3)


def surfaces(ready: SimpleNamespace, out: Path, **extra: str) -> Path:
    out.mkdir()
    request = JobRequest(ready.path, out, extra={"task": "surfaces", "scan": str(ready.scan), **extra})
    tasks.run(request, ignore)
    return out


def test_surfaces_lie_where_the_organs_do(ready: SimpleNamespace, tmp_path: Path) -> None:
    result, scan = read_result(ready.result), read_scan(ready.scan)
    assert scan is not None
    out = surfaces(ready, tmp_path / "organs", result=str(ready.result))
    found = {row.value: row for row in result.organs if row.volume_ml > 0}
    assert {path.stem for path in out.glob("*.mz3")} == set(map(str, found))
    for value in found:
        triangles, points = read_mz3(out / f"{value}.mz3")
        assert triangles.max() == len(points) - 1
        inside = (scan.affine @ np.c_[np.argwhere(result.mask() == value), np.ones((result.mask() == value).sum())].T)[
            :3
        ]
        for axis in range(3):
            reach = (inside[axis].min(), inside[axis].max())
            assert (points[:, axis].min(), points[:, axis].max()) == pytest.approx(reach, abs=4.1)


def test_an_organ_that_the_coarse_grid_misses_has_an_empty_surface(ready: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "result"
    shutil.copytree(ready.result, folder)
    shape = read_result(ready.result).mask().shape
    scan = tmp_path / "scan"
    shutil.copytree(ready.scan, scan)
    facts = json.loads((scan / "scan.json").read_text())
    (scan / "scan.json").write_text(json.dumps(facts | {"spacing_mm": [0.5, 0.5, 0.5]}))
    tiny, large = (slice(5, 7), slice(5, 7), slice(5, 7)), (slice(20, 30),) * 3
    mask = box_mask(shape, (1, (slice(None),) * 3), (2, tiny), (3, large))  # no background at all
    np.save(folder / "page" / "mask.npy", mask)
    out = surfaces(SimpleNamespace(path=ready.path, scan=scan), tmp_path / "organs", result=str(folder))
    assert {path.name for path in out.glob("*.mz3")} == {"1.mz3", "2.mz3", "3.mz3"}
    assert [len(read_mz3(out / f"{value}.mz3")[0]) > 0 for value in (1, 2, 3)] == [True, False, True]
    assert (out / "2.mz3").stat().st_size < 200  # what the viewer takes for no surface


def test_bones_are_what_is_dense(ready: SimpleNamespace, tmp_path: Path) -> None:
    _, points = read_mz3(surfaces(ready, tmp_path / "bones") / "bone.mz3")
    middle = points.mean(axis=0) - [7, -11, 23]
    assert middle == pytest.approx([0, -34, 0], abs=4)
    assert np.ptp(points[:, 0]) == pytest.approx(2 * ROD_RADIUS_MM, abs=4)


def test_a_slice_drawn_by_the_server_shows_what_was_asked_for(ready: SimpleNamespace) -> None:
    scan, result = read_scan(ready.scan), read_result(ready.result)
    assert scan is not None
    asked = {"plane": "axial", "index": "18", "low": "-140", "high": "260", "side": "200"}
    plain, coloured = slice_png(scan, None, asked), slice_png(scan, result, asked)
    hidden = slice_png(scan, result, asked | {"hide": ",".join(str(row.value) for row in result.organs)})
    assert plain != coloured
    assert hidden == plain
    for wrong in ({"plane": "tilted"}, {"index": "x"}, {"low": ""}):
        with pytest.raises(ValueError, match=r".*"):
            slice_png(scan, None, asked | wrong)


def test_a_histogram_counts_every_voxel_of_its_organ() -> None:
    hu = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    mask = (hu < 400).astype(np.uint8)
    found = histograms(mask, hu, [1, 2])
    assert set(found) == {1}
    assert sum(found[1]["counts"]) == 400
    assert 0 <= found[1]["low"] < found[1]["high"] <= 400


def test_a_cancelled_segmentation_leaves_through_the_progress(ready: SimpleNamespace, tmp_path: Path) -> None:
    def stop(event: Progress) -> None:
        if event.stage == "measure":
            raise Cancelled

    with pytest.raises(Cancelled):
        segment(JobRequest(ready.path, tmp_path, model="tissue-hu"), stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("forecast_s", [0.0, WORTH_S])
def test_a_scan_that_was_replaced_is_neither_read_nor_segmented(tmp_path: Path, forecast_s: float) -> None:
    path, scan, out = tmp_path / "scan.nii.gz", tmp_path / "seen", tmp_path / "out"
    for folder in (scan, out):
        folder.mkdir()
    write_nifti(path, phantom_volume())
    look(JobRequest(path, scan), ignore)
    extra = {"scan": str(scan), "forecast_s": forecast_s, "preview": str(tmp_path / "preview")}
    request = JobRequest(path, out, model="tissue-hu", extra=extra)
    assert read(request).hu.any()
    write_nifti(path, phantom_volume(seed=2))
    for work in (lambda: read(request), lambda: segment(request, ignore)):
        with pytest.raises(ScanChangedError, match=r"scan\.nii\.gz: the scan has changed since it was opened"):
            work()
    assert list(out.iterdir()) == []
    write_nifti(path, phantom_volume())
    segment(request, ignore)
    assert (out / "run.json").is_file()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    out = tmp_path_factory.mktemp("example")
    look(JobRequest(example_path(), out), ignore)
    scan = read_scan(out)
    assert scan is not None
    return scan


def test_a_forecast_knows_the_models(example: Scan) -> None:
    for model in ("head-neck-oar", "tissue-hu"):
        seconds, memory_mb = _foretold(example, model)
        assert 0.5 < seconds < 600
        assert 100 < memory_mb < 8000


@pytest.mark.slow
def test_a_coarse_result_looks_like_the_full_one(example: Scan, tmp_path: Path) -> None:
    volume = read_volume(example_path())
    write_preview(tmp_path / "preview", volume, "head-neck-oar", ignore)
    coarse = read_result(tmp_path / "preview")
    full = tmp_path / "full"
    full.mkdir()
    segment(JobRequest(example_path(), full, model="head-neck-oar"), ignore)
    fine = read_result(full)
    assert coarse.mask().shape == fine.mask().shape == example.shape
    for row in fine.organs:
        mine, theirs = coarse.mask() == row.value, fine.mask() == row.value
        assert 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum()) > 0.8, row.name


def test_a_coarse_result_lies_on_the_scans_grid(ready: SimpleNamespace, tmp_path: Path) -> None:
    write_preview(tmp_path / "preview", read_volume(ready.path), "head-neck-oar", ignore)
    coarse = read_result(tmp_path / "preview")
    assert coarse.mask().shape == read_result(ready.result).mask().shape
    assert coarse.model == "head-neck-oar"


def test_models_without_a_network_need_no_preview(ready: SimpleNamespace, tmp_path: Path) -> None:
    write_preview(tmp_path / "preview", read_volume(ready.path), "tissue-hu", ignore)
    assert not (tmp_path / "preview").exists()
