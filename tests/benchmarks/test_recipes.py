"""What a benchmark kept is gone on with under the same recipe and data alone, and from before recipes were kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ablation, against_nnunet_training, learning_curves
from benchmarks.against_nnunet_training import five_organs
from benchmarks.recipe import RECIPE, agreed, data_of, keep_recipe, recipe_of
from medseg.imaging.nifti import read_label_map, write_label_map
from medseg.training.cases import Dataset, read_index
from medseg.training.config import PhantomConfig, load_config
from medseg.training.phantoms import write_phantoms

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
ORGANS = ("ball_left", "box_right", "rod")
SCORES = {"v00": dict.fromkeys(ORGANS, 0.5)}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return read_index(write_phantoms(tmp_path / "bodies", PhantomConfig(train=2, validation=1)))


@pytest.fixture
def elsewhere(tmp_path: Path, dataset: Dataset) -> Dataset:
    """The same data at another place."""
    return read_index(shutil.copytree(tmp_path / "bodies", tmp_path / "moved") / "index.json")


@pytest.fixture
def corrected(elsewhere: Dataset) -> Dataset:
    """Other data with the same names: one label was drawn anew."""
    labels, geometry = read_label_map(elsewhere.cases[0].label)
    write_label_map(elsewhere.cases[0].label, np.where(labels == 3, 0, labels), geometry)
    return elsewhere


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Run folders in which a training was asked for; none is done."""
    folders: list[Path] = []
    for script in (ablation, against_nnunet_training, learning_curves):
        monkeypatch.setattr(script, "train_model", lambda config, folder, **other: folders.append(folder))
        monkeypatch.setattr(script, "score", lambda *given: SCORES)
    monkeypatch.setattr(learning_curves, "read_journal", lambda f: [{"seconds_per_step": 1, "amp": {"precision": "x"}}])
    return folders


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def forget(path: Path, *keys: str) -> None:
    """A file as an older version wrote it."""
    path.write_text(json.dumps({key: value for key, value in load(path).items() if key not in keys}))


def test_what_differs_is_named_and_what_was_not_known_before_is_added(tmp_path: Path) -> None:
    assert agreed(tmp_path, {"a": {"b": [1, 2]}, "old": 1}, {"a": {"b": (1, 2)}, "new": 2}) == {
        "a": {"b": [1, 2]},
        "old": 1,
        "new": 2,
    }
    with pytest.raises(SystemExit) as end:
        agreed(tmp_path, {"a": {"b": 1, "c": 2}, "d": "x" * 99}, {"a": {"b": 2, "e": 3}, "d": ""})
    text = str(end.value)
    assert text.startswith(f"{tmp_path} was made with another recipe or other data (a.b: 1 there, 2 here; a.c: 2 there")
    assert text.endswith("and 1 more): move it away, or train with those.")


def test_a_folder_keeps_its_recipe(tmp_path: Path) -> None:
    keep_recipe(tmp_path / "run", {"a": 1})
    keep_recipe(tmp_path / "run", {"a": 1, "b": 2})
    assert load(tmp_path / "run" / RECIPE) == {"a": 1, "b": 2}
    with pytest.raises(SystemExit, match="b: 2 there, 3 here"):
        keep_recipe(tmp_path / "run", {"a": 1, "b": 3})
    assert load(tmp_path / "run" / RECIPE) == {"a": 1, "b": 2}


def test_places_and_habits_are_no_part_of_a_recipe(tmp_path: Path) -> None:
    here, there = ({"cache": tmp_path / name, "loop.workers": n} for n, name in enumerate("ab"))
    assert recipe_of(load_config("smoke", here)) == recipe_of(load_config("smoke", there))
    assert recipe_of(load_config("smoke", {"loop.seed": 1})) != recipe_of(load_config("smoke", {"loop.seed": 2}))
    assert "seed" not in recipe_of(load_config("smoke"), "seed")["loop"]


def test_data_are_their_bytes_splits_and_contours(dataset: Dataset, elsewhere: Dataset) -> None:
    assert data_of(dataset) == data_of(elsewhere)
    first, *others = dataset.cases
    for change in ({"split": "validation"}, {"contoured": ("rod",)}, {"ct": others[0].ct}):
        assert data_of(replace(dataset, cases=(replace(first, **change), *others))) != data_of(dataset)


def test_masks_of_organs_in_another_order_are_refused(dataset: Dataset, elsewhere: Dataset, tmp_path: Path) -> None:
    index = five_organs(dataset, ORGANS, tmp_path / "data")
    before = index.read_bytes()
    with pytest.raises(SystemExit, match=r"data was made with another.*labels\.\w+: \d there, \d here"):
        five_organs(dataset, ORGANS[::-1], tmp_path / "data")
    assert five_organs(elsewhere, ORGANS, tmp_path / "data").read_bytes() == before


def test_masks_of_labels_that_were_corrected_since_are_refused(
    dataset: Dataset, corrected: Dataset, tmp_path: Path
) -> None:
    five_organs(dataset, ORGANS, tmp_path / "data")
    with pytest.raises(SystemExit, match=r"made_from\.cases\.t00"):
        five_organs(corrected, ORGANS, tmp_path / "data")


def test_masks_from_before_recipes_are_gone_on_with_for_the_same_organs(dataset: Dataset, tmp_path: Path) -> None:
    index = five_organs(dataset, ORGANS, tmp_path / "data")
    whole = load(index)
    forget(index, "made_from")
    with pytest.raises(SystemExit, match="labels"):
        five_organs(dataset, ORGANS[::-1], tmp_path / "data")
    assert load(five_organs(dataset, ORGANS, tmp_path / "data")) == whole


def test_masks_of_a_start_that_was_killed_are_made_anew(dataset: Dataset, tmp_path: Path) -> None:
    five_organs(dataset, ORGANS[::-1], tmp_path / "data").unlink()
    made = read_index(five_organs(dataset, ORGANS, tmp_path / "data"))
    for case, source in zip(made.cases, dataset.cases, strict=True):
        mask, truth = read_label_map(case.label)[0], read_label_map(source.label)[0]
        assert all(((mask == made.labels[o]) == (truth == dataset.labels[o])).all() for o in ORGANS)


def against(tmp_path: Path, **changes: Any) -> against_nnunet_training.Arguments:
    given = against_nnunet_training.Arguments(tmp_path, tmp_path / "out.json", config="smoke", organs=ORGANS)
    return replace(given, **changes)


def test_ours_under_another_setting_is_no_result_of_this_one(
    dataset: Dataset, tmp_path: Path, trained: list[Path]
) -> None:
    index = five_organs(dataset, ORGANS, tmp_path / "data")
    ours = read_index(index)
    row = against_nnunet_training.our_run(against(tmp_path), index, ours, 0)
    assert against_nnunet_training.our_run(against(tmp_path), index, ours, 0) == row
    assert len(trained) == 1
    with pytest.raises(SystemExit, match=r"ours-0-45min was made .*loop\.gradient_clip: 1\.0 there, 0\.5 here"):
        against_nnunet_training.our_run(against(tmp_path, set_=("loop.gradient_clip=0.5",)), index, ours, 0)
    (trained[0] / RECIPE).unlink()  # as a version before left it
    assert against_nnunet_training.our_run(against(tmp_path), index, ours, 0) == row
    assert (trained[0] / RECIPE).is_file()


def test_theirs_is_of_the_same_data_and_masks(dataset: Dataset, tmp_path: Path) -> None:
    index, place = five_organs(dataset, ORGANS, tmp_path / "data"), tmp_path / "nnunet"

    def theirs(**changes: Any) -> dict[str, Any]:
        given = against(tmp_path, **changes)
        return against_nnunet_training._their_run(given, place, read_index(index), ("plan", "trainer"), 0, 45.0)

    results = place / "results-plan-trainer-0-45min"
    results.mkdir(parents=True)
    (results / "scored.json").write_text('{"masks": "nnunet"}')
    assert theirs() == {"masks": "nnunet"}
    with pytest.raises(SystemExit, match=r'scored\.json was made .*masks: "nnunet" there, "default" here'):
        theirs(masks="default")
    index.unlink()
    index = five_organs(dataset, ORGANS[::-1], tmp_path / "data")
    with pytest.raises(SystemExit, match=r"results-plan-trainer-0-45min was made .*data\.labels"):
        theirs()
    given = against(tmp_path)
    keep_recipe(place, {"data": {"labels": {}}})
    with pytest.raises(SystemExit, match=r"nnunet was made .*data\.labels"):
        against_nnunet_training.their_runs(given, read_index(index))


def test_an_earlier_result_is_of_the_same_data(dataset: Dataset, tmp_path: Path) -> None:
    index = five_organs(dataset, ORGANS, tmp_path / "data")
    earlier = tmp_path / "earlier.json"
    shutil.copy(RESULTS / "against_nnunet_training_sides.json", earlier)
    forget(earlier, "data")
    rows = against_nnunet_training._earlier(against(tmp_path, earlier=earlier), index)
    assert [row["seed"] for row in rows] == [0, 1]
    earlier.write_text(json.dumps(load(earlier) | {"data": {"labels": {"rod": 1}}}))
    with pytest.raises(SystemExit, match=r"earlier\.json was made .*data\.labels"):
        against_nnunet_training._earlier(against(tmp_path, earlier=earlier), index)


def test_a_row_under_another_setting_is_no_result_of_this_one(
    dataset: Dataset, corrected: Dataset, tmp_path: Path, trained: list[Path]
) -> None:
    given = ablation.Arguments(tmp_path / "work", tmp_path / "out.json", config="smoke")
    trainings: dict[str, Any] = {}

    def row(index: str, *settings: str) -> dict[str, Any]:
        changed = replace(given, set_=(f"index={tmp_path / index / 'index.json'}", "phantoms=null", *settings))
        config = load_config(changed.config, ablation.parse_settings(changed.set_))
        found = {"trainings": trainings, "data": ablation._data(config)}
        return ablation._run(changed, config, found, "plain", 0, 1e-2, 9)

    before = row("bodies")
    assert row("bodies") == before
    assert len(trained) == 1
    with pytest.raises(SystemExit, match=r"out\.json was made .*loop\.gradient_clip: 1\.0 there, 0\.5 here"):
        row("bodies", "loop.gradient_clip=0.5")
    trainings.clear()  # what is left of a run that was killed
    with pytest.raises(SystemExit, match=r"plain-0-0\.01-9steps was made .*loop\.gradient_clip: 1\.0 there, 0\.5 here"):
        row("bodies", "loop.gradient_clip=0.5")
    with pytest.raises(SystemExit, match=r"data\.cases\.t00"):
        row("moved")
    (trained[0] / RECIPE).unlink()  # as a version before left it
    assert row("bodies") == before
    assert (trained[0] / RECIPE).is_file()


def test_curves_of_other_data_are_not_gone_on_with(dataset: Dataset, elsewhere: Dataset, tmp_path: Path) -> None:
    given = learning_curves.Arguments(tmp_path / "work", tmp_path / "out.json", config="smoke")
    given.out.write_text(json.dumps(learning_curves._begun(given, dataset)))
    assert learning_curves._begun(given, elsewhere) == load(given.out)
    fewer = replace(dataset, cases=dataset.cases[1:])
    with pytest.raises(SystemExit, match=r"out\.json was made .*data\.cases\.t00: .* there, null here"):
        learning_curves._begun(given, fewer)


def test_a_point_of_other_data_is_not_gone_on_with(
    dataset: Dataset, corrected: Dataset, tmp_path: Path, trained: list[Path]
) -> None:
    given = learning_curves.Arguments(tmp_path / "work", tmp_path / "out.json", config="smoke")
    point, folder = learning_curves.Point(1), tmp_path / "work" / "point"
    learning_curves._train(given, dataset, point, 0, folder)
    with pytest.raises(SystemExit, match=r"point was made .*data\.cases\.t00"):
        learning_curves._train(given, corrected, point, 0, folder)
    assert len(trained) == 1


def test_the_committed_curves_are_gone_on_with(dataset: Dataset, tmp_path: Path) -> None:
    given = learning_curves.Arguments(tmp_path / "work", tmp_path / "out.json")
    shutil.copy(RESULTS / "learning_curves.json", given.out)
    forget(given.out, "data")
    found = learning_curves._begun(given, dataset)
    assert found == load(given.out) | {"data": data_of(dataset)}
    with pytest.raises(SystemExit, match=r"recipe\.spacing_mm"):
        learning_curves._begun(replace(given, set_=("spacing_mm=[4, 4, 4]",)), dataset)


def test_a_points_own_width_seed_and_length_win_over_settings(tmp_path: Path) -> None:
    given = learning_curves.Arguments(
        tmp_path, tmp_path / "out.json", config="smoke", steps=10,
        set_=("network.options={channels: [8, 16, 32], norm: batch}", "loop.seed=7", "loop.max_steps=3"),
    )  # fmt: skip
    found = learning_curves._settings(given, tmp_path / "index.json", learning_curves.Point(1, width=2, time=0.5), 1)
    assert found["network.options"] == {"channels": [16, 32, 64], "norm": "batch"}
    assert (found["loop.seed"], found["loop.max_steps"]) == (1, 5)
