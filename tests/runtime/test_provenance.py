"""What ran: stage times, versions, the machine without its name."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from medseg.runtime import provenance
from medseg.runtime.progress import Progress, ignore
from medseg.runtime.provenance import (
    StageClock,
    machine,
    now,
    peak_memory_mb,
    processor_model,
    reset_peak_memory,
    versions,
)


def test_stages_stand_in_order_and_add_up() -> None:
    clock = StageClock()
    for name in ("read", "segment", "read"):
        with clock.stage(name):
            time.sleep(0.02)
    assert list(clock.seconds) == ["read", "segment"]
    assert clock.seconds["read"] >= 0.04
    assert clock.seconds["segment"] >= 0.02


def test_a_stage_that_fails_is_counted() -> None:
    clock = StageClock()
    with pytest.raises(ZeroDivisionError), clock.stage("read"):
        _ = 1 / 0
    assert "read" in clock.seconds


def test_versions_name_what_can_change_a_result() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert {"torch", "monai", "nibabel", "SimpleITK", "pydicom"} <= set(found)


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_PACKAGES", ("numpy", "a-package-that-nobody-wrote"))
    assert set(versions()) == {"python", "numpy"}


def test_the_machine_keeps_its_name() -> None:
    words = machine()
    assert set(words) == {"system", "processor", "processor_model", "cores"}
    assert words["cores"] >= 1
    assert platform.node() not in map(str, words.values())


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        ("processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 9R14: x\nmodel name\t: other\n", "AMD EPYC 9R14: x"),
        ("processor\t: 0\nCPU part\t: 0xd40\n", ""),  # ARM gives numbers alone
        (None, "as the platform says"),
    ],
)
def test_the_processor_is_named_as_far_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, model: str
) -> None:
    def read_text(path: Path) -> str:
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(platform, "processor", lambda: "as the platform says")
    assert processor_model.__wrapped__() == model


def test_memory_peaks_only_grow() -> None:
    before = peak_memory_mb()
    block = np.ones(64 * 2**17)  # 64 MiB
    assert before > 10
    assert peak_memory_mb() >= before
    assert block.nbytes == 64 * 2**20


def test_the_peak_can_be_counted_anew() -> None:
    block = np.ones(128 * 2**17)  # 128 MiB, given back to the system when it goes
    high = peak_memory_mb()
    del block
    reset_peak_memory()
    if not os.access("/proc/self/clear_refs", os.W_OK):
        assert peak_memory_mb() >= high  # nothing can be reset here, and nothing breaks
        return
    assert peak_memory_mb() < high - 64


def test_now_is_utc_to_the_second() -> None:
    then = datetime.fromisoformat(now())
    assert then.tzinfo == UTC
    assert abs((datetime.now(UTC) - then).total_seconds()) < 5


def test_progress_is_frozen_and_can_be_ignored() -> None:
    step = Progress("read", 0.1, "Reading")
    ignore(step)
    with pytest.raises(FrozenInstanceError):
        step.fraction = 0.2  # type: ignore[misc]
