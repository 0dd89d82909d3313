"""`medseg benchmark specification`: every promise has a row; what was not measured says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.benchmark.console import BEGIN, END, put_markdown
from medseg.benchmark.specification import NEEDS_GPU, Row, _fp32_bytes, _size, specification
from medseg.benchmark.training_step import compare_steps
from medseg.cli import main
from medseg.errors import DataError
from medseg.models.store import WEIGHTS, load_model
from tests.inference.backends.packages import tiny_package

PAIR: dict[str, Any] = {
    "patients": 31,
    "ours": {"mean": 0.72},
    "theirs": {"mean": 0.69},
    "difference": 0.03,
    "interval_95": [0.01, 0.05],
}


@pytest.fixture
def ablation(tmp_path: Path) -> Path:
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps({"steps": 900, "rows": {"all": {"against_plain": PAIR}}}))
    return path


def test_every_promise_has_a_row_with_both_sides_or_a_reason(tmp_path: Path, ablation: Path) -> None:
    seen: list[Row] = []
    rows = specification(tiny_package(tmp_path / "tiny"), ablation, 1, (24, 20, 18), seen.append)
    assert rows == seen
    found = {row.what: row for row in rows}
    assert {"model size", "latency of a window", "seconds a volume", "training throughput"} <= set(found)
    assert "medseg export --int8" in found["model size"].on
    for row in rows:
        assert bool(row.baseline) == bool(row.ours) == bool(row.ratio)
        assert row.on
    if not torch.cuda.is_available():
        assert [row.on for row in rows if "width 64" in row.what] == [NEEDS_GPU]
        assert found["training memory"].ratio.endswith(" %")
    assert found["Dice, optimised against original"].ratio == "+3.0 points (+1.0 to +5.0)"


def test_a_file_in_half_precision_is_not_taken_for_single() -> None:
    package = load_model("head-neck-oar")
    row = _size(package)
    assert _fp32_bytes(package) == pytest.approx(2 * package.file(WEIGHTS).stat().st_size, rel=0.01)
    assert row.baseline == "fp32 18.35 MB"
    assert row.ratio == "-75 %"


def test_without_trainings_their_row_says_what_is_missing(tmp_path: Path, ablation: Path) -> None:
    row = specification(tiny_package(tmp_path / "tiny"), None, 1, (24, 20, 18))[-1]
    assert "benchmarks/ablation.py" in row.on
    one = PAIR | {"patients": 1, "interval_95": None}
    ablation.write_text(json.dumps({"steps": 900, "rows": {"all": {"against_plain": one}}}))
    assert specification(tiny_package(tmp_path / "one"), ablation, 1, (24, 20, 18))[-1].ratio == "+3.0 points"
    ablation.write_text("{}")
    with pytest.raises(DataError, match=r"ablation\.json is no result"):
        specification(tiny_package(tmp_path / "other"), ablation, 1, (24, 20, 18))


def test_half_precision_is_measured_beside_single() -> None:
    costs = compare_steps({"channels": [16, 32]}, (32, 32, 32), 1, torch.device("cpu"), 2)
    assert set(costs) == {"fp32", "half"}
    assert all(cost.seconds > 0 for cost in costs.values())
    assert costs["half"].memory_mb < costs["fp32"].memory_mb


def test_the_table_replaces_itself_in_a_document(tmp_path: Path) -> None:
    path = tmp_path / "B.md"
    path.write_text("# Benchmarks\n")
    put_markdown(path, [Row("a", "-1 %", on="here")])
    first = path.read_text()
    path.write_text(first + "\nAfter.\n")
    put_markdown(path, [Row("b", "-2 %", on="there")])
    text = path.read_text()
    assert text.startswith("# Benchmarks\n")
    assert text.endswith("\nAfter.\n")
    assert text.count(BEGIN) == text.count(END) == 1
    assert "| b | -2 % |" in text
    assert "| a |" not in text


@pytest.mark.slow
def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_package(tmp_path / "tiny")
    with pytest.raises(SystemExit) as end:
        main(["benchmark", "specification", "--model", str(tmp_path / "tiny"), "-o", str(tmp_path / "out.json")])
    assert end.value.code == 0
    assert "promise" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["benchmark", "specification", "--model", "tissue-hu"])
    assert end.value.code == 64
    assert len(json.loads((tmp_path / "out.json").read_text())["rows"]) >= 6
