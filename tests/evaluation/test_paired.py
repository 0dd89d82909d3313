"""Two models on the same patients: differences with intervals, and the command that prints them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from medseg.cli import main
from medseg.errors import DataError
from medseg.evaluation.paired import compare, comparison_table, mean_dice

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
    assert found["ours"]["sd"] == pytest.approx(0.01 * math.sqrt(2), abs=1e-4)  # of a sample of two
    assert compare([scores()], [scores()], ORGANS)["ours"]["sd"] is None


def test_noise_alone_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    noisy = {p: {o: v + rng.normal(0, 0.05) for o, v in row.items()} for p, row in scores().items()}
    low, high = compare([noisy], [scores()], ORGANS)["interval_95"]
    assert low < 0 < high


def test_patients_are_drawn_with_all_their_scans() -> None:
    """Each of twelve patients scanned five times alike: no narrower than one scan each."""
    once = {name: {"a": row["a"]} for name, row in scores().items()}
    rng = np.random.default_rng(1)
    noisy = {name: {"a": row["a"] + rng.normal(0, 0.05)} for name, row in once.items()}
    often, noisy_often = ({f"{p}s{n}": row for p, row in each.items() for n in range(5)} for each in (once, noisy))
    patient_of = {case: case.split("s")[0] for case in often}
    found, single = compare([noisy_often], [often], "a", patient_of), compare([noisy], [once], "a")
    assert (found["patients"], found["difference"]) == (12, single["difference"])
    assert found["interval_95"] == pytest.approx(single["interval_95"], abs=0.001)


def test_other_patients_are_refused() -> None:
    with pytest.raises(DataError, match="same patients"):
        compare([scores(patients=3)], [scores(patients=4)], ORGANS)


def test_an_organ_that_one_side_invents_counts_for_both() -> None:
    ours, theirs = scores(0.02), scores()
    ours["p11"]["b"] = 0.0
    del theirs["p11"]["b"]  # a true negative
    found, turned = compare([ours], [theirs], ORGANS), compare([theirs], [ours], ORGANS)
    assert found["organs"]["b"]["difference"] == pytest.approx((10 * 0.02 - 1) / 11, abs=1e-4)
    assert found["difference"] == pytest.approx(found["ours"]["mean"] - found["theirs"]["mean"], abs=2e-4)
    low, high = found["organs"]["b"]["interval_95"]
    assert low < found["organs"]["b"]["difference"] < high == 0.02
    assert (turned["difference"], turned["ours"]) == (-found["difference"], found["theirs"])
    assert turned["interval_95"] == pytest.approx([-limit for limit in reversed(found["interval_95"])], abs=1e-4)


def test_an_organ_that_one_seed_invents_counts_for_all() -> None:
    invents, silent = {"p": {"a": 0.5}, "q": {"a": 0.0}}, {"p": {"a": 0.5}, "q": {}}
    found = compare([invents, silent], [silent], ("a",))
    assert (found["ours"]["seeds"], found["theirs"]["mean"]) == ([0.25, 0.75], 0.75)
    assert (found["patients"], found["difference"]) == (2, -0.25)


def test_a_patient_of_whom_nothing_counts_changes_nothing() -> None:
    found = compare([scores(0.05) | {"z": {}}], [scores() | {"z": {}}], ORGANS)
    assert found == compare([scores(0.05)], [scores()], ORGANS)
    nothing = compare([{"z": {}}], [{"z": {}}], ORGANS)
    assert (nothing["difference"], nothing["ours"]) == (None, {"seeds": [None], "mean": None, "sd": None})
    assert "this one nothing scored" in printed(nothing)


def printed(found: dict[str, Any]) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(comparison_table(found))
    return console.file.getvalue()


def test_a_single_patient_has_no_interval_and_the_table_says_so() -> None:
    ours, theirs = scores(0.05), scores()
    ours["p3"]["c"], theirs["p3"]["c"] = 0.70, 0.65
    found = compare([ours], [theirs], ("a", "c", "d"))
    assert found["organs"]["c"] == {"difference": 0.05, "interval_95": None}
    assert found["interval_95"] is not None
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in printed(found).splitlines() if line.strip()}
    assert (lines["c"], lines["d"]) == ("+0.050 none: one patient", "no patient")
    twice = {name: {"a": row["a"]} for name, row in scores(patients=2).items()}
    assert compare([twice], [twice], "a")["interval_95"] == [0, 0]
    assert compare([twice], [twice], "a", dict.fromkeys(twice, "p"))["interval_95"] is None


def test_scores_by_other_contours_are_refused() -> None:
    theirs = scores()
    del theirs["p3"]["b"]
    with pytest.raises(DataError, match=r"Case p3: b .*not scored on another"):
        compare([scores()], [theirs], ORGANS)


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


@pytest.mark.parametrize("inventor", ["right", "worse"])
def test_the_command_counts_organs_that_one_model_invents(
    masks: Path, inventor: str, save: Any, save_index: Any, head: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {name: ["brainstem", "parotid_gland_right"] for name in ("p1", "p2", "p3")}
    save_index(masks / "data" / "index.json", known | {"p4": ["brainstem"]})
    save(masks / "data" / "validation" / "p4_label.nii.gz", head * 0)
    for model in ("right", "worse"):
        save(masks / model / "p4.nii.gz", head * (model == inventor))
    assert evaluated(masks, "--against", str(masks / "worse")) == 0
    found = json.loads((masks / "out" / "comparison.json").read_text())
    assert found["patients"] == 4
    assert found["organs"]["brainstem"]["difference"] == (-0.25 if inventor == "right" else 0.25)
    assert "0 for that one, 1 for the other" in " ".join(capsys.readouterr().out.split())


def test_no_mask_is_not_rewarded_where_the_other_invents(masks: Path, save: Any, save_index: Any, head: Any) -> None:
    known = {name: ["brainstem", "parotid_gland_right"] for name in ("p1", "p2", "p3")}
    save_index(masks / "data" / "index.json", known | {"p4": ["brainstem"]})
    save(masks / "data" / "validation" / "p4_label.nii.gz", head * 0)
    save(masks / "right" / "p4.nii.gz", head)
    assert evaluated(masks, "--against", str(masks / "worse")) == 0
    found = json.loads((masks / "out" / "comparison.json").read_text())
    assert (found["patients"], found["organs"]["brainstem"]["difference"]) == (3, 0)


def test_masks_that_the_other_model_lacks_are_said(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (masks / "worse" / "p2.nii.gz").unlink()
    assert evaluated(masks, "--against", str(masks / "worse")) == 0
    found = json.loads((masks / "out" / "comparison.json").read_text())
    assert found["without_mask"] == {"ours": [], "theirs": ["p2"]}
    said = " ".join(capsys.readouterr().out.split())
    assert "the other has no mask for 1 cases, and 0 for every organ there: p2." in said
    assert evaluated(masks) == 0
    assert not (masks / "out" / "comparison.json").exists()  # it was of other scores


def test_sides_that_call_the_references_values_by_other_names_are_refused(
    tmp_path: Path, save: Any, save_result: Any, head: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"brainstem": 1, "parotid_gland_right": 2, "parotid_gland_left": 3}
    turned = names | {"parotid_gland_right": 3, "parotid_gland_left": 2}
    head[16:18][head[16:18] == 2] = 0  # glands are never of one size
    save(tmp_path / "data/validation/p1.nii.gz", head)
    save_result(tmp_path / "right/p1", head, names)
    save_result(tmp_path / "other/p1", np.array([0, 1, 3, 2], np.uint8)[head], turned)
    assert evaluated(tmp_path, "--against", str(tmp_path / "other")) == 65
    assert "by different contours" in capsys.readouterr().err


def test_seeds_without_another_model_are_refused(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated(masks, "--seeds", str(masks / "right")) == 64
    assert "--against FOLDER" in capsys.readouterr().err
    assert not (masks / "out").exists()
