"""The comparisons of trainings: their arithmetic, and a whole run on computed bodies that goes on where it was left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ablation import ROWS, options_of, settings_of
from benchmarks.against_nnunet_training import five_organs
from benchmarks.bf16_step import interval
from benchmarks.learning_curves import Arguments, Point, _row, curves_of, draw
from medseg.imaging.emit import emit_json
from medseg.training.cases import read_index
from medseg.training.config import PhantomConfig, load_config
from medseg.training.phantoms import write_phantoms

ROOT = Path(__file__).resolve().parents[2]


def test_the_interval_of_a_ratio_of_medians() -> None:
    assert interval(np.full(9, 2.0), np.full(9, 1.0)) == [2.0, 2.0]


def test_every_row_changes_what_it_says_and_all_together_everything() -> None:
    config = load_config("head-neck-oar")
    plain = options_of(config, "plain")
    assert (plain["attention"], plain["residual"], plain["deep_supervision"]) == (False, False, 0)
    assert plain["channels"] == config.network.options["channels"]
    together = ("all", "all but attention")
    single = len(ROWS) - 1 - len(together)
    for name in ROWS:
        changed = [k for k in plain if options_of(config, name)[k] != plain[k]]
        changed += [k for k in settings_of("plain") if settings_of(name)[k] != settings_of("plain")[k]]
        loop = load_config("head-neck-oar", settings_of(name)).loop
        assert loop.ema_decay == (0.998 if name in ("average", *together) else None)
        assert loop.precision == ("bf16" if name in ("half precision", *together) else "fp32")
        assert len(changed) == {"plain": 0, "all": single, "all but attention": single - 1}.get(name, 1), name
    assert not options_of(config, "all but attention")["attention"]


def test_the_curves_share_one_point_and_change_one_thing_each() -> None:
    curves = curves_of(Arguments(Path("w"), Path("o"), cases=(20, 40, 500)), 163)
    assert [point.cases for point in curves["cases"]] == [20, 40, 163]
    assert [point.time for point in curves["time"]] == [0.25, 0.5, 1.0, 2.0]
    assert [point.width for point in curves["width"]] == [0.5, 1.0, 2.0]
    assert all(Point(163) in points for points in curves.values())


def test_an_organ_without_a_validation_contour_is_left_blank(tmp_path: Path) -> None:
    given = Arguments(tmp_path, tmp_path / "out.json")
    rows = [_row(given, "cases", Point(n), [{"p": {"a": 0.5}}], ["a", "b"]) for n in (2, 3)]
    assert rows[0] == {"at": 2, "dice": [0.5], "organs": {"a": 0.5, "b": None}}
    emit_json(given.out, rows)
    nothing = [_row(given, "cases", Point(2), [{"p": {}}], ["a"])]
    draw({axis: {"points": points} for axis, points in {"cases": rows, "time": nothing}.items()}, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_five_organs_keep_what_the_index_says_of_patients(tmp_path: Path) -> None:
    index = write_phantoms(tmp_path / "phantoms", PhantomConfig(train=2, validation=1))
    content = load(index)
    for case in content["cases"]:
        case["patient"] = "the same"
    index.write_text(json.dumps(content))
    made = read_index(five_organs(read_index(index), ("rod", "box_right"), tmp_path / "data"))
    assert set(made.patients.values()) == {"the same"}


def run(script: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / script), "--smoke", *options],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.slow
def test_the_comparison_runs_on_computed_bodies_and_goes_on(tmp_path: Path) -> None:
    options = ("--work", str(tmp_path / "work"), "--seeds", "0", "-o", str(tmp_path / "out.json"))
    assert "step 12/12" in run("against_nnunet_training.py", *options)
    found = load(tmp_path / "out.json")
    assert found["patients"] == {"train": 6, "validation": 2}
    assert set(found["ours"][0]["scores"]) == {"v00", "v01"}
    assert "step" not in run("against_nnunet_training.py", *options)  # nothing is trained twice
    assert load(tmp_path / "out.json")["ours"] == found["ours"]


@pytest.mark.slow
def test_the_ablation_runs_on_computed_bodies_and_goes_on(tmp_path: Path) -> None:
    options = ("--work", str(tmp_path / "work"), "-o", str(tmp_path / "out.json"))
    assert "step 6/6" in run("ablation.py", *options)
    rows = load(tmp_path / "out.json")["rows"]
    assert set(rows) == {"plain", "attention", "all"}
    assert rows["plain"]["against_plain"]["difference"] == 0
    assert rows["plain"]["cost_share"] == {key: [1.0, 1.0, 1.0] for key in ("training_mb", "step_s", "window_s")}
    assert all(value > 0 for row in rows.values() for values in row["cost"].values() for value in values)
    shutil.rmtree(tmp_path / "work")
    assert "step 6" not in run("ablation.py", *options)  # the result is enough, on another machine too
    again = load(tmp_path / "out.json")["rows"]
    assert {name: row["against_plain"] for name, row in again.items()} == {
        n: r["against_plain"] for n, r in rows.items()
    }


@pytest.mark.slow
def test_the_learning_curves_run_on_computed_bodies_and_go_on(tmp_path: Path) -> None:
    options = ("--work", str(tmp_path / "work"), "-o", str(tmp_path / "out.json"))
    assert "step 4/4" in run("learning_curves.py", *options)
    curves = load(tmp_path / "out.json")["curves"]
    assert [[row["at"] for row in curve["points"]] for curve in curves.values()] == [[2, 3], [2, 4], [0.5, 1.0]]
    shared = [curve["points"][-1]["dice"] for curve in curves.values()]
    assert shared[0] == shared[1] == shared[2]
    assert (tmp_path / "out.png").stat().st_size > 10_000
    shutil.rmtree(tmp_path / "work")
    assert "step" not in run("learning_curves.py", *options)  # the result is enough, on another machine too


@pytest.mark.slow
def test_the_bf16_step_is_measured_in_pairs(tmp_path: Path) -> None:
    run("bf16_step.py", "--minutes", "0.2", "-o", str(tmp_path / "out.json"))
    found = load(tmp_path / "out.json")
    assert found["pairs"] >= 3
    assert found["ratio"] == pytest.approx(found["fp32_s"] / found["bf16_s"], rel=0.01)
    assert found["losses"]["fp32"][0] == pytest.approx(found["losses"]["bf16"][0], rel=0.02)
