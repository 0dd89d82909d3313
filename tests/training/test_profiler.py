"""The profiler names what bounds the steps, in runs that were made so."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.training import TrainingProfiler
from medseg.training import run as runs
from medseg.training.counters import NotHereError, open_counter
from medseg.training.journal import StepRecord
from medseg.training.profiler import TIMELINE, judge
from medseg.training.task import Loss
from tests.training.conftest import settings
from tests.training.toys import LineTask, Points, line_trainer


def busy(seconds: float) -> None:
    """Compute, as a transform or a network does."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        torch.ones(64, 64) @ torch.ones(64, 64)


class SlowNetwork(LineTask):
    def loss(self, network: nn.Module, batch: Points) -> Loss:
        busy(0.3)
        return super().loss(network, batch)


def slow_loader() -> LineTask:
    def spoil(number: int, y: Tensor) -> Tensor:
        busy(0.1)
        return y

    return LineTask(spoil=spoil)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("bound", ["loader", "compute"])
def test_the_bottleneck_is_named(tmp_path: Path, bound: str, workers: int) -> None:
    task = slow_loader() if bound == "loader" else SlowNetwork()
    with TrainingProfiler(interval=0.1, folder=tmp_path, workers=workers) as profiler:
        line_trainer(tmp_path, task, watchers=[profiler], max_steps=8, workers=workers).run()
    assert profiler.verdict.bottleneck == f"{bound}-bound"
    assert profiler.verdict.text.startswith(f"{bound}-bound: ")
    assert profiler.verdict.steps == 7
    lines = [json.loads(line) for line in (tmp_path / TIMELINE).read_text().splitlines()]
    assert lines == profiler.samples
    assert len(lines) >= 2
    # Those that hold the first step, in which workers start, say nothing; of the others one may be disturbed.
    seen = [line["waiting_share"] for line in lines if line["waiting_share"] is not None and line["step"] > 1]
    assert median(seen) > 0.2 if bound == "loader" else median(seen) < 0.2
    assert profiler.peak_memory_mb > 50
    assert any(0 < line["cpu_share"] <= 1.1 for line in lines)


def test_the_specifications_call_says_what_the_machine_lacks(tmp_path: Path) -> None:
    with TrainingProfiler(metrics=["gpu_util", "mem_copy", "ipc"], interval=5) as profiler:
        busy(0.05)
    for metric in ("gpu_util", "mem_copy", "ipc"):
        has_value = profiler.samples[-1].get(metric) is not None
        assert has_value != (metric in profiler.missing)
    if not torch.cuda.is_available():
        assert profiler.missing["gpu_util"] == profiler.missing["mem_copy"] == "no GPU"
    if "ipc" not in profiler.missing:
        assert 0.05 < profiler.samples[-1]["ipc"] < 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not part maps of files from memory")
def test_maps_of_prepared_cases_are_no_memory_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "case").write_bytes(bytes(200 << 20))
    with TrainingProfiler(interval=60, folder=tmp_path) as profiler:
        before = profiler._memory_mb()
        mapped = torch.from_file(str(tmp_path / "case"), size=200 << 20, dtype=torch.uint8)
        assert int(mapped.sum()) == 0  # every page is read
        assert profiler._memory_mb() - before < 50
        own = torch.ones(200 << 20, dtype=torch.uint8)
        assert profiler._memory_mb() - before > 150
        del own


def test_a_counter_that_is_not_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "abacus")
    with pytest.raises(NotHereError, match="abacus"):
        open_counter("ipc")


class Gpu:
    """Of a machine that has two; remembers which one was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        for name in ("utilization", "memory_usage"):
            monkeypatch.setattr(torch.cuda, name, self.read)

    def read(self, device: Any = None) -> int:
        self.asked.append(device)
        return 10


def test_the_gpu_that_trains_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, second = Gpu(monkeypatch), torch.device("cuda", 1)
    with TrainingProfiler(metrics=["gpu_util", "mem_copy"], device=second) as profiler:
        pass
    assert profiler.samples[-1]["gpu_util"] == profiler.samples[-1]["mem_copy"] == 0.1
    assert set(gpu.asked) == {second}


def test_a_training_on_the_cpu_reads_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    with TrainingProfiler(metrics=["gpu_util"], device=torch.device("cpu")) as profiler:
        for _ in range(3):
            profiler(record(1.0, 0.0))
    assert gpu.asked == []
    assert profiler.missing == {"gpu_util": "training runs on cpu, not on the GPU"}
    assert profiler.verdict.bottleneck == "compute-bound"


def test_a_run_tells_the_profiler_its_device(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    monkeypatch.setattr(runs, "validate", lambda *arguments: None)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings(dataset, max_steps=3, device="cpu")))
    runs.train_model(path, tmp_path / "run", report=lambda line: None)
    assert gpu.asked == []


def test_the_package_that_reads_the_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpu(monkeypatch)

    def missing(device: Any) -> int:
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    with pytest.raises(NotHereError, match=r"nvidia-ml-py is missing \(pip install 'medseg\[gpu\]'\)"):
        open_counter("gpu_util")


def record(seconds: float, waited_s: float) -> StepRecord:
    return StepRecord(1, 0.5, {}, 1.0, seconds, waited_s)


@pytest.mark.parametrize(
    ("waited", "gpu", "kind"),
    [(0.38, None, "loader-bound"), (0.15, None, "balanced"), (0.0, 0.3, "launch-bound"), (0.0, 0.9, "compute-bound")],
)
def test_verdicts(waited: float, gpu: float | None, kind: str) -> None:
    verdict = judge([record(1.0, waited)] * 3, 2, gpu)
    assert verdict.bottleneck == kind
    assert f"{waited:.0%} of the step waits for data" in verdict.text


def test_nothing_is_said_of_no_steps_and_wrong_settings_are_refused() -> None:
    assert judge([]).bottleneck == "unknown"
    with pytest.raises(ConfigError, match="heat"):
        TrainingProfiler(metrics=["heat"])
    with pytest.raises(ConfigError, match="interval"):
        TrainingProfiler(interval=0)
