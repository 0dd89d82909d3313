"""Two models on the same patients: differences with intervals, and the command that prints them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.cli import main
from medseg.errors import DataError
from medseg.evaluation.paired import compare, mean_dice

ORGANS = ("a", "b")


def scores(gap: float = 0.0, patients: int = 12) -> dict[str, dict[str, float]]:
    made = {f"p{n}": {"a": 0.5 + 0.02 * n + gap, "b": 0.7 + gap} for n in range(patients)}
    del made["p0"]["b"]  # not contoured
    return made


def test_the_mean_is_that_of_organs_each_over_its_own_patients() -> None:
    assert mean_dice({"p": {"a": 0.2, "b": 1.0}, "q": {"a": 0.4}}, ORGANS) == pytest.approx((0.3 + 1.0) / 2)
    assert math.isnan(mean_dice({"p": {}}, ORGANS))


def test_a_constant_gap_has_an_interval_of_no_width() -> None:
    found = compare([scores(0.05), scores(0.07)], [scores(), scores()], ORGANS)
    assert found["difference"] == pytest.approx(0.06)
    assert found["interval_95"] == pytest.approx([0.06, 0.06])
    assert {organ: row["difference"] for organ, row in found["organs"].items()} == pytest.approx({"a": 0.06, "b": 0.06})
    assert found["organs"]["b"]["interval_95"] == pytest.approx([0.06, 0.06])
    assert compare([scores()], [scores()], ("a", "nobody has it"))["organs"]["nobody has it"]["interval_95"] is None
    assert found["ours"]["sd"] == pytest.approx(0.01)


def test_noise_alone_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    noisy = {p: {o: v + rng.normal(0, 0.05) for o, v in row.items()} for p, row in scores().items()}
    low, high = compare([noisy], [scores()], ORGANS)["interval_95"]
    assert low < 0 < high


def test_other_patients_are_refused() -> None:
    with pytest.raises(DataError, match="same patients"):
        compare([scores(patients=3)], [scores(patients=4)], ORGANS)


@pytest.fixture
def masks(tmp_path: Path, save: Any, save_index: Any, head: Any) -> Path:
    """Three patients: references, a model that is right, and one that misses most of an organ."""
    worse = head.copy()
    worse[:, :, : head.shape[2] // 2][worse[:, :, : head.shape[2] // 2] == 2] = 0
    for name in ("p1", "p2", "p3"):
        save(tmp_path / "data" / "validation" / f"{name}_label.nii.gz", head)
        save(tmp_path / "right" / f"{name}.nii.gz", head)
        save(tmp_path / "worse" / f"{name}.nii.gz", worse)
    known = ["brainstem", "parotid_gland_right"]
    save_index(tmp_path / "data" / "index.json", {"p1": known, "p2": known, "p3": known})
    return tmp_path


def evaluated(masks: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(masks / "right"), str(masks / "data/validation"), "-o", str(masks / "out"), *options])
    return int(end.value.code or 0)


def test_the_command_compares_two_models(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated(masks, "--against", str(masks / "worse"), "--seeds", str(masks / "right")) == 0
    found = json.loads((masks / "out" / "comparison.json").read_text())
    assert found["patients"] == 3
    assert len(found["ours"]["seeds"]) == 2
    assert found["organs"]["brainstem"]["difference"] == 0
    low, high = found["organs"]["parotid_gland_right"]["interval_95"]
    assert 0 < low <= found["organs"]["parotid_gland_right"]["difference"] <= high
    said = capsys.readouterr().out
    assert "Dice against the other model, 3 patients" in said
    assert "SD over 2 seeds" in said


def test_seeds_without_another_model_are_refused(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated(masks, "--seeds", str(masks / "right")) == 64
    assert "--against FOLDER" in capsys.readouterr().err
    assert not (masks / "out").exists()
