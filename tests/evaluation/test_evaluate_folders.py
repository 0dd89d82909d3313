"""`evaluate` on real folders: names, label tables, indices, grids, and the files that it writes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from medseg.errors import ConfigError, DataError
from medseg.evaluation import EmptyPolicy, Scorecard, evaluate

Save = Callable[..., Path]


def printed(card: Scorecard) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(card.table())
    return console.file.getvalue()


@pytest.fixture
def study(tmp_path: Path, save: Save, save_result: Save, save_index: Save, head: Any) -> Path:
    """Three references below an index; two result folders with other values, one of them half wrong."""
    other = {"brainstem": 30, "parotid_gland_right": 10, "parotid_gland_left": 20, "rib": 40}
    remapped = np.zeros_like(head)
    for organ, value in {"brainstem": 1, "parotid_gland_right": 2, "parotid_gland_left": 3}.items():
        remapped[head == value] = other[organ]
    save_result(tmp_path / "out" / "p1_ct", remapped, other)
    worse = remapped.copy()
    worse[head == 2] = 0
    save_result(tmp_path / "out" / "p2_ct", worse, other)
    for name in ("p1", "p2", "p10"):
        save(tmp_path / "data" / "validation" / f"{name}_label.nii.gz", head)
        save(tmp_path / "data" / "validation" / f"{name}_ct.nii.gz", head * 0 + 99)
    every = ["brainstem", "parotid_gland_right", "parotid_gland_left"]
    save_index(tmp_path / "data" / "index.json", {"p1": every[:1], "p2": every, "p10": every[1:]})
    return tmp_path


def run(study: Path, **options: Any) -> Scorecard:
    return evaluate(study / "out", study / "data" / "validation", study / "scores", **options)


def test_rows_are_the_contoured_organs_of_every_reference(study: Path) -> None:
    rows = {(row.case, row.organ): row.figures for row in run(study).rows}
    assert list(rows) == [
        ("p1", "brainstem"),
        ("p2", "brainstem"),
        ("p2", "parotid_gland_right"),
        ("p2", "parotid_gland_left"),
        ("p10", "parotid_gland_right"),
        ("p10", "parotid_gland_left"),
    ]
    assert [figures.dice for figures in rows.values()] == [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]


def test_scores_json(study: Path) -> None:
    run(study)
    scores = json.loads((study / "scores" / "scores.json").read_text())
    assert scores["cases"] == 3
    right, stem = scores["organs"]["parotid_gland_right"], scores["organs"]["brainstem"]
    assert (right["n"], right["misses"], right["missed_cases"], right["unknown"]) == (2, 2, ["p2", "p10"], 1)
    assert right["dice"]["mean"] == 0
    assert right["hd95_mm"]["mean"] is None
    assert right["hd95_mm"]["misses"] == 2
    diagonal = math.hypot(24 * 2.0, 28 * 1.5, 30 * 3.0)
    assert right["hd95_penalised_mm"]["mean"] == pytest.approx(diagonal, abs=1e-3)
    assert (stem["n"], stem["dice"]["mean"], stem["dice"]["sd"], stem["dice"]["ci95"]) == (2, 1.0, 0.0, [1.0, 1.0])
    assert scores["overall"]["dice"]["mean"] == pytest.approx((1 + 0 + 0.5) / 3, abs=1e-6)
    assert (scores["overall"]["n"], scores["overall"]["misses"]) == (6, 3)
    assert scores["references_without_prediction"] == ["p10"]
    assert scores["left_right_swaps"] == 0
    assert scores["settings"]["tolerance_mm"] == 5.0
    assert "miss" in scores["policy"]
    assert scores["versions"]["monai"]


def test_scores_csv(study: Path) -> None:
    run(study, tolerance_mm={"brainstem": 2.0})
    rows = list(csv.DictReader((study / "scores" / "scores.csv").read_text().splitlines()))
    assert [(row["case"], row["outcome"], row["predicted_case"]) for row in rows[-2:]] == [
        ("p10", "miss", "no"),
        ("p10", "miss", "no"),
    ]
    assert (rows[0]["dice"], rows[0]["hd95_mm"], rows[0]["tolerance_mm"]) == ("1.0", "0.0", "2.0")
    assert (rows[2]["hd95_mm"], rows[2]["volume_error_percent"], rows[2]["tolerance_mm"]) == ("", "-100.0", "5.0")


def test_plot_and_table(study: Path) -> None:
    card = run(study, within_contoured=("brainstem",))
    with Image.open(study / "scores" / "plot.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 1000
    red = (abs(pixels.astype(int) - [192, 57, 43]).sum(axis=2) < 60).sum()
    assert red > 50  # the marks of the misses
    text = printed(card)
    assert "p10" in text
    assert "Left-right swaps: 0" in text
    assert "contoured slices ± 1: brainstem" in text
    assert max(map(len, text.splitlines())) <= 80
    for heading in ("95 % CI", "plain", "surface", "HD95", "missed", "false", "pos."):
        assert heading in text


def test_the_plain_column_is_left_out_where_every_organ_is_scored_in_the_whole_scan(study: Path) -> None:
    assert "plain" not in printed(run(study))


def test_window_stands_beside_the_plain_figure(study: Path, head: Any, save_result: Save, table: Any) -> None:
    longer = head.copy()
    longer[10:14, 8:18, :] = 1
    save_result(study / "out" / "p1_ct", longer, table)
    card = run(study, organs=["brainstem"], within_contoured=["brainstem"])
    organ = card.summary["organs"]["brainstem"]
    windowed, plain = 2 * 22 / (22 + 24), 2 * 22 / (22 + 30)
    assert organ["dice"]["mean"] == pytest.approx((1 + windowed) / 2, abs=1e-5)
    assert organ["plain"]["dice"]["mean"] == pytest.approx((1 + plain) / 2, abs=1e-5)
    assert card.summary["overall"]["plain"]["dice"]["mean"] == organ["plain"]["dice"]["mean"]
    assert organ["scope"] == "contoured slices ± 1"


def test_swaps_are_reported(study: Path, head: Any, save_result: Save, table: Any) -> None:
    swapped = head.copy()
    swapped[head == 2], swapped[head == 3] = 3, 2
    save_result(study / "out" / "p2_ct", swapped, table)
    card = run(study)
    assert card.left_right_swapped == ("p2 parotid_gland",)
    assert json.loads((study / "scores" / "scores.json").read_text())["left_right_swaps"] == 1


def test_predictions_without_reference_are_listed(study: Path, head: Any, save_result: Save) -> None:
    save_result(study / "out" / "stranger", head)
    card = run(study)
    assert card.predictions_without_reference == ("stranger",)
    assert "stranger" in printed(card)


def test_flat_folder_and_longer_names(tmp_path: Path, save: Save, head: Any, table: dict[str, int]) -> None:
    for name in ("a.nii.gz", "parent__b_ct.nii.gz", "c_0000.nii.gz"):
        save(tmp_path / "pred" / name, head)
    for name in ("a_label.nii.gz", "b.nii.gz", "c_seg.nii"):
        save(tmp_path / "ref" / name, head)
    card = evaluate(tmp_path / "pred", tmp_path / "ref", labels=table)
    assert card.cases == ("a", "b", "c")
    assert (card.references_without_prediction, card.predictions_without_reference) == ((), ())
    assert card.summary["overall"]["dice"]["mean"] == 1.0
    assert card.notes == ("Masks without a label table: the references' values.",)


def test_masks_named_after_scans(tmp_path: Path, save: Save, head: Any, table: dict[str, int]) -> None:
    for side in ("pred", "ref"):
        save(tmp_path / side / "a_ct.nii.gz", head)
    save(tmp_path / "ref" / "a.nii.gz", head)
    assert evaluate(tmp_path / "pred", tmp_path / "ref", labels=table).cases == ("a",)


def test_two_files_whatever_their_names(tmp_path: Path, save: Save, head: Any) -> None:
    prediction, reference = save(tmp_path / "mine.nii.gz", head), save(tmp_path / "x" / "truth.nii.gz", head)
    card = evaluate(prediction, reference)
    assert [(row.case, row.organ, row.figures.dice) for row in card.rows] == [
        ("truth", f"label_{value}", 1.0) for value in (1, 2, 3)
    ]
    assert "named by their value" in card.notes[0]


@pytest.mark.parametrize("names", [{"brainstem": 2, "parotid_gland_right": 1}, {"brainstem": 1}, None])
def test_references_with_differing_label_tables_are_refused(
    tmp_path: Path, save: Save, save_result: Save, head: Any, names: Any
) -> None:
    table = {"brainstem": 1, "parotid_gland_right": 2}
    for case in ("p1", "p2", "p3"):
        save_result(tmp_path / "out" / case, head, table)
        save_result(tmp_path / "refs" / case, head, table)
    assert evaluate(tmp_path / "out", tmp_path / "refs").organs == tuple(table)
    if names is None:
        (tmp_path / "refs" / "p3" / "labels.json").unlink()
    else:
        save_result(tmp_path / "refs" / "p3", head, names)
    with pytest.raises(DataError, match=r"refs/p1/mask\.nii\.gz and .*refs/p3/mask\.nii\.gz differ in the label"):
        evaluate(tmp_path / "out", tmp_path / "refs")
    evaluate(tmp_path / "out", tmp_path / "refs", labels=table)


def test_one_result_folder_lends_its_table(tmp_path: Path, save: Save, save_result: Save, head: Any) -> None:
    result, reference = save_result(tmp_path / "r", head), save(tmp_path / "x" / "truth.nii.gz", head)
    card = evaluate(result, reference)
    assert card.organs == ("brainstem", "parotid_gland_right", "parotid_gland_left")
    assert "assumed" in card.notes[0]


@pytest.mark.parametrize(
    "content",
    [
        {"labels": [{"name": "brainstem", "value": 1, "colour": "#fff"}, {"name": "cord", "value": 2}]},
        [{"name": "background", "value": 0}, {"name": "brainstem", "value": 1}, {"name": "cord", "value": 2}],
        {"labels": {"background": 0, "brainstem": 1, "cord": 2}},
        {"brainstem": 1, "cord": 2},
        {"1": "brainstem", "2": "cord"},
    ],
)
def test_label_tables_are_read_in_every_form(tmp_path: Path, save: Save, head: Any, content: Any) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps(content))
    mask = save(tmp_path / "a.nii.gz", head)
    card = evaluate(mask, mask, labels=path)
    assert card.organs == ("brainstem", "cord")
    assert any("Case a: predicted values without a name are not scored: 3." in note for note in card.notes)


@pytest.mark.parametrize("content", ["{", '"x"', "{}", '{"a": 1, "b": 1}', '[{"name": "a"}]', '{"a": [1, 2]}'])
def test_broken_label_tables_are_named(tmp_path: Path, save: Save, head: Any, content: str) -> None:
    path = tmp_path / "names.json"
    path.write_text(content)
    mask = save(tmp_path / "a.nii.gz", head)
    with pytest.raises(DataError, match=r"names\.json"):
        evaluate(mask, mask, labels=path)


def test_missing_label_file_is_named(tmp_path: Path, save: Save, head: Any) -> None:
    mask = save(tmp_path / "a.nii.gz", head)
    with pytest.raises(DataError, match=r"no file .*gone\.json"):
        evaluate(mask, mask, labels=tmp_path / "gone.json")


def test_empty_masks_without_names_cannot_be_scored(tmp_path: Path, save: Save, head: Any) -> None:
    mask = save(tmp_path / "a.nii.gz", head * 0)
    with pytest.raises(DataError, match="every mask is empty"):
        evaluate(mask, mask)


def test_organs_that_the_prediction_cannot_name_are_misses(
    tmp_path: Path, save: Save, save_result: Save, head: Any, table: dict[str, int]
) -> None:
    result = save_result(tmp_path / "r", head, {"brainstem": 1})
    card = evaluate(result, save(tmp_path / "x" / "t.nii.gz", head), labels=table)
    assert [row.figures.dice for row in card.rows] == [1.0, 0.0, 0.0]
    assert any("lacks count as misses: parotid_gland_right, parotid_gland_left" in note for note in card.notes)


def test_tables_without_a_common_organ_are_refused(
    tmp_path: Path, save: Save, save_result: Save, head: Any, table: dict[str, int]
) -> None:
    result = save_result(tmp_path / "r", head, {"liver": 1, "spleen": 2})
    with pytest.raises(DataError, match="liver, spleen; the references name brainstem"):
        evaluate(result, save(tmp_path / "x" / "t.nii.gz", head), labels=table)


def test_other_grid_is_refused_by_name(study: Path, save_result: Save, head: Any, affine: Any) -> None:
    moved = affine.copy()
    moved[0, 3] += 1.0
    save_result(study / "out" / "p2_ct", head, matrix=moved)
    with pytest.raises(DataError, match=r"Case p2: .*another grid.*RAS.*resampled silently"):
        run(study)
    save_result(study / "out" / "p2_ct", head[:-1])
    with pytest.raises(DataError, match=r"Case p2: .*23 x 28 x 30 voxels"):
        run(study)
    assert not (study / "scores").exists()


def test_case_that_the_index_does_not_list_is_refused(study: Path, save: Save, head: Any) -> None:
    save(study / "data" / "validation" / "p3_label.nii.gz", head)
    with pytest.raises(DataError, match=r"Case p3 is not listed in .*index\.json"):
        run(study)


def test_another_index_can_be_given(study: Path, save_index: Save, table: dict[str, int]) -> None:
    index = save_index(study / "other.json", {name: ["brainstem"] for name in ("p1", "p2", "p10")}, table)
    assert {row.organ for row in run(study, index=index).rows} == {"brainstem"}


def test_index_that_names_no_cases_knows_every_organ(study: Path, table: dict[str, int]) -> None:
    (study / "other.json").write_text(json.dumps({"labels": table}))
    assert len(run(study, index=study / "other.json").rows) == 9


def test_the_index_says_whose_each_case_is(study: Path) -> None:
    index = json.loads((study / "data" / "index.json").read_text())
    index["cases"][0]["patient"] = index["cases"][2]["patient"] = 7
    (study / "data" / "index.json").write_text(json.dumps(index))
    card = run(study)
    assert (card.cases, card.patients) == (("p1", "p2", "p10"), ("7", "p2", "7"))
    assert json.loads((study / "scores" / "scores.json").read_text())["bootstrap"]["patients"] == 2


def test_contoured_organs_that_the_label_table_lacks_are_named(study: Path, save_index: Save) -> None:
    every = ["brainstem", "parotid_gland_right"]
    index = save_index(study / "other.json", {"p1": every, "p2": ["Brainstem", "liver"], "p10": every})
    with pytest.raises(DataError, match=r"Case p2 in .*other\.json: .*label table: Brainstem, liver\."):
        run(study, index=index)
    bare = study / "bare.json"
    bare.write_text(json.dumps({"cases": json.loads(index.read_text())["cases"]}))
    with pytest.raises(DataError, match=r"Case p2 in .*bare\.json"):
        run(study, index=bare, labels={"brainstem": 1, "parotid_gland_right": 2})


@pytest.mark.parametrize("labels", [{}, {"labels": {"brainstem": 1, "parotid_gland_right": 2}}])
def test_a_case_without_contoured_was_looked_through_for_every_organ(study: Path, labels: Any, table: Any) -> None:
    cases = [{"id": "p1"}, {"id": "p2", "contoured": ["brainstem"]}, {"id": "p10"}]
    (study / "other.json").write_text(json.dumps(labels | {"cases": cases}))
    (study / "data" / "validation" / "labels.json").write_text(json.dumps(table))
    rows = run(study, index=study / "other.json").rows
    every = 2 if labels else 3
    assert [sum(row.case == case for row in rows) for case in ("p1", "p2", "p10")] == [every, 1, every]


@pytest.mark.parametrize("content", ["[]", '{"labels": {"a": 1}, "cases": [{"name": "p1"}]}'])
def test_broken_index_is_named(study: Path, content: str) -> None:
    (study / "other.json").write_text(content)
    with pytest.raises(DataError, match=r"other\.json"):
        run(study, index=study / "other.json")


def test_names_that_fit_nothing_or_twice_are_refused(tmp_path: Path, save: Save, head: Any) -> None:
    save(tmp_path / "pred" / "x.nii.gz", head)
    save(tmp_path / "ref" / "y.nii.gz", head)
    with pytest.raises(DataError, match=r"No prediction fits a reference by name: x in .* against y in /"):
        evaluate(tmp_path / "pred", tmp_path / "ref")
    for name in ("one__y.nii.gz", "two__y.nii.gz"):
        save(tmp_path / "pred" / name, head)
    with pytest.raises(DataError, match="Case y fits several predictions: one__y, two__y"):
        evaluate(tmp_path / "pred", tmp_path / "ref")
    save(tmp_path / "ref" / "y_label.nii.gz", head)
    with pytest.raises(DataError, match="Case y has several masks"):
        evaluate(tmp_path / "pred", tmp_path / "ref")


def test_missing_and_empty_folders_are_named(tmp_path: Path, save: Save, head: Any) -> None:
    with pytest.raises(DataError, match="nothing at"):
        evaluate(tmp_path / "gone", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No masks in"):
        evaluate(tmp_path / "empty", save(tmp_path / "a.nii.gz", head))


def test_unknown_organs_in_the_settings_are_refused(study: Path) -> None:
    for options in ({"organs": ["liver"]}, {"within_contoured": ["liver"]}, {"tolerance_mm": {"liver": 2.0}}):
        with pytest.raises(ConfigError, match="Unknown organs: liver"):
            run(study, **options)


def test_false_positives_lower_the_mean_unless_the_policy_says_no(
    tmp_path: Path, save: Save, head: Any, table: dict[str, int]
) -> None:
    for name in ("a", "b"):
        save(tmp_path / "pred" / f"{name}.nii.gz", head)
    save(tmp_path / "ref" / "a.nii.gz", head)
    save(tmp_path / "ref" / "b.nii.gz", np.where(head == 1, 0, head))
    means = {}
    for keep in (True, False):
        policy = EmptyPolicy(false_positives_in_mean=keep)
        card = evaluate(tmp_path / "pred", tmp_path / "ref", tmp_path / "out", labels=table, policy=policy)
        organ = card.summary["organs"]["brainstem"]
        means[keep] = organ["dice"]["mean"]
        assert (organ["false_positives"], organ["misses"], organ["scored"]) == (1, 0, 1)
    assert means == {True: 0.5, False: 1.0}


def test_progress_names_each_case(study: Path) -> None:
    seen: list[tuple[float, str]] = []
    run(study, progress=lambda step: seen.append((round(step.fraction, 2), step.message)))
    assert seen == [(0.0, "p1"), (0.33, "p2"), (0.67, "p10")]
