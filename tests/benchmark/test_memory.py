"""`medseg benchmark`: figures that are measured, and labels that are MONAI's."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.benchmark.memory import benchmark_memory
from medseg.benchmark.tile import benchmark_tile
from medseg.cli import main
from medseg.errors import ConfigError, ResourceError
from medseg.models.store import load_model
from tests.inference.planted import write_package


def test_a_computed_scan_is_labelled_as_monai_does(tmp_path: Path) -> None:
    shares: list[float] = []
    result = benchmark_memory(5, (128, 130, 140), tmp_path / "mask.nii.gz", on_window=shares.append)
    assert result.equal_to_monai >= 0.9999
    assert result.compared_voxels > 64**3
    assert shares[-1] == 1.0
    mask = np.asarray(nib.nifti1.load(tmp_path / "mask.nii.gz").dataobj)
    assert mask.shape == (128, 130, 140)
    assert len(np.unique(mask)) > 1
    assert 0 < result.forecast.memory_mb < 4000


@pytest.mark.slow
def test_a_limit_is_kept_and_changes_no_label(tmp_path: Path) -> None:
    # Each in a process of its own: what one leaves behind would count against the other's limit.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        shape = (192, 192, 130)
        free = pool.submit(benchmark_memory, 40, shape, tmp_path / "free.nii.gz").result()
        limit = free.forecast.memory_mb - 250  # what a fresh process holds varies by 60 MB: the heap's holes
        tight = pool.submit(benchmark_memory, 40, shape, tmp_path / "tight.nii.gz", limit).result()
    assert tight.forecast.parts > (1, 1)
    assert tight.peak_memory_mb <= limit
    masks = [np.asarray(nib.nifti1.load(tmp_path / f"{name}.nii.gz").dataobj) for name in ("free", "tight")]
    assert (masks[0] == masks[1]).mean() >= 0.9999


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="128 voxels"):
        benchmark_memory(5, (64, 130, 140), tmp_path / "mask.nii.gz")
    with pytest.raises(ResourceError, match="are allowed"):
        benchmark_memory(5, (128, 130, 140), tmp_path / "mask.nii.gz", 50)


def test_every_way_to_run_a_model_is_timed(tmp_path: Path) -> None:
    results = benchmark_tile(load_model(write_package(tmp_path / "model")), rounds=2)
    assert "torch fp32" in [str(result.candidate) for result in results]
    assert all(len(result.seconds) == 2 and result.best > 0 for result in results)
    assert [result.best for result in results] == sorted(result.best for result in results)


def test_the_command_prints_and_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(
            ["benchmark", "tile", "--model", str(write_package(tmp_path / "model")), "-o", str(tmp_path / "tile.json")]
        )
    assert end.value.code == 0
    assert "torch fp32" in capsys.readouterr().out
    assert "torch fp32" in json.loads((tmp_path / "tile.json").read_text())["seconds"]
    with pytest.raises(SystemExit) as end:
        main(["benchmark", "memory", "--shape", "wide"])
    assert end.value.code == ConfigError.exit_code
