"""Corrections from the viewer: checked, applied, saved as a version of their own, handed to training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.edits import edit
from app.results import Result
from app.services import Desk
from medseg.imaging.nifti import read_label_map
from medseg.imaging.volume import reorient
from medseg.training.cases import load_case, read_index
from tests.app.conftest import VISITOR, ended, read, run, until
from tests.phantoms import phantom_volume, write_nifti

Answer = dict[str, Any]


@pytest.fixture
def study(desk: Desk, tmp_path: Path) -> str:
    volume = phantom_volume(orientation="LPS", noise_hu=0)
    study = desk.take_path(write_nifti(tmp_path / "scan.nii.gz", volume), VISITOR)
    run(desk, study)
    return study


def asked(desk: Desk, study: str, *, number: int = 1, **order: Any) -> tuple[Answer, int]:
    return edit(desk, study, VISITOR, number, json.dumps(order).encode())


def result_of(desk: Desk, study: str, number: int) -> Result:
    found = desk.result(study, VISITOR, number)
    assert found is not None
    return found


def draft_of(desk: Desk, study: str) -> np.ndarray:
    draft = desk.corrections.draft(study, VISITOR, 1)
    assert draft is not None
    return np.array(draft.mask())


def bone_of(desk: Desk, study: str) -> int:
    return next(row.value for row in result_of(desk, study, 1).organs if row.name == "bone")


def test_a_stroke_is_answered_with_what_it_did(desk: Desk, study: str) -> None:
    bone = bone_of(desk, study)
    answer, status = asked(desk, study, op="paint", value=bone, points=[[24, 30, 18]], radius_mm=8, protect=False)
    assert status == 200
    before, after = result_of(desk, study, 1).mask(), draft_of(desk, study)
    assert answer["voxels"] == int((before != after).sum()) > 10
    assert answer["counts"][bone] == answer["voxels"]
    assert answer["undo"] == 1
    voxel_ml = 3.5 * 3.5 * 4.0 / 1000
    assert answer["volumes"][bone] == pytest.approx((after == bone).sum() * voxel_ml, abs=1e-3)
    answer, _ = asked(desk, study, op="undo")
    assert (answer["undo"], answer["redo"]) == (0, 1)
    assert (draft_of(desk, study) == before).all()
    asked(desk, study, op="redo")
    assert (draft_of(desk, study) == after).all()
    asked(desk, study, op="discard")
    assert (draft_of(desk, study) == before).all()


def test_a_saved_correction_is_a_version_and_the_old_one_stays(desk: Desk, study: str) -> None:
    first, bone = result_of(desk, study, 1), bone_of(desk, study)
    before = (first.folder / "mask.nii.gz").read_bytes()
    asked(
        desk, study, op="paint", value=bone, points=[[24, 30, 18], [28, 30, 18]], radius_mm=8, ball=True, protect=False
    )
    wanted = draft_of(desk, study)
    answer, status = asked(desk, study, op="save")
    assert (answer, status) == ({"run": 2}, 200)
    view = ended(desk, study, 2)
    assert (view.state, view.corrected) == ("done", True)

    second = result_of(desk, study, 2)
    assert (second.mask() == wanted).all()
    assert (first.folder / "mask.nii.gz").read_bytes() == before
    body = next(row.name for row in first.organs if row.name == "body")
    assert second.corrected["organs"] == sorted(["bone", body])
    rows = {row.name: row for row in second.organs}
    assert rows["bone"].volume_ml == pytest.approx((wanted == bone).sum() * 3.5 * 3.5 * 4.0 / 1000, rel=1e-4)
    assert rows["bone"].mean_probability is None
    stored, geometry = read_label_map(second.folder / "mask.nii.gz")
    assert (reorient(stored, geometry.to_canonical) == wanted).all()
    assert json.loads((second.folder / "run.json").read_text())["corrected"]["version"] == 2
    assert draft_of(desk, study).tolist() == first.mask().tolist()  # the next correction begins anew


def paint(desk: Desk, study: str, x: float) -> np.ndarray:
    """A stroke, and the draft with it."""
    asked(desk, study, op="paint", value=bone_of(desk, study), points=[[x, 30, 18]], radius_mm=8, protect=False)
    return draft_of(desk, study)


def test_a_cancelled_correction_keeps_its_strokes(desk: Desk, study: str) -> None:
    wanted = paint(desk, study, 24)
    desk.errands.export(study, VISITOR, 1, "report-pdf", "en")  # the correction has to wait for it
    assert asked(desk, study, op="save") == ({"run": 2}, 200)
    assert asked(desk, study, op="save")[1] == 409  # it is on its way
    desk.cancel(study, VISITOR, 2)
    assert ended(desk, study, 2).state == "cancelled"
    assert (draft_of(desk, study) == wanted).all()
    answer, _ = asked(desk, study, op="open")
    assert answer["undo"] == 1
    assert asked(desk, study, op="save") == ({"run": 3}, 200)
    assert ended(desk, study, 3).state == "done"
    assert (result_of(desk, study, 3).mask() == wanted).all()
    assert (draft_of(desk, study) == result_of(desk, study, 1).mask()).all()
    left = [path.name for path in (desk.folders.root / study / "drafts").iterdir()]
    assert left == ["1.npy"]


def test_a_correction_that_fails_keeps_its_strokes(desk: Desk, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "scan.nii.gz", phantom_volume(noise_hu=0))
    study = desk.take_path(path, VISITOR)
    read(desk, study)
    run(desk, study)
    wanted, content = paint(desk, study, 24), path.read_bytes()
    write_nifti(path, phantom_volume(seed=3))
    asked(desk, study, op="save")
    failed = ended(desk, study, 2)
    assert failed.problem is not None
    assert (failed.state, failed.problem.code) == ("failed", "ScanChangedError")
    assert (draft_of(desk, study) == wanted).all()
    path.write_bytes(content)
    asked(desk, study, op="save")
    assert ended(desk, study, 3).state == "done"
    assert (result_of(desk, study, 3).mask() == wanted).all()


def test_strokes_that_follow_a_saved_draft_are_kept(desk: Desk, study: str) -> None:
    saved = paint(desk, study, 24)
    asked(desk, study, op="save")
    more = paint(desk, study, 34)
    assert ended(desk, study, 2).state == "done"
    assert (result_of(desk, study, 2).mask() == saved).all()
    assert (more != saved).any()
    assert (draft_of(desk, study) == more).all()


def test_nothing_drawn_is_nothing_saved(desk: Desk, study: str) -> None:
    answer, status = asked(desk, study, op="save")
    assert (answer["reason"], status) == ("edit.unchanged", 409)
    assert len(desk.view(study, VISITOR).runs) == 1


def test_filling_an_open_area_is_refused_with_a_reason(desk: Desk, study: str) -> None:
    answer, status = asked(desk, study, op="fill", value=bone_of(desk, study), points=[[0, 0, 0]])
    assert (answer["reason"], status) == ("edit.not_enclosed", 409)


def test_a_stroke_below_the_scan_is_no_fault(desk: Desk, study: str) -> None:
    answer, status = asked(desk, study, op="paint", value=bone_of(desk, study), points=[[-40, 10, 10]], radius_mm=3)
    assert (answer["voxels"], status) == (0, 200)


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"op": "paint", "value": 99, "points": [[1, 1, 1]]}, 409),
        ({"op": "paint", "value": 1, "points": []}, 409),
        ({"op": "paint", "value": 1, "points": [[1e300, 1, 1]]}, 409),
        ({"op": "fill", "value": 1, "points": [[900, 1, 1]]}, 409),
        ({"op": "paint", "value": 1, "points": [[1, 1, 1]], "radius_mm": 1e9}, 400),
        ({"op": "paint", "value": 1, "points": [[1, 1]]}, 400),
        ({"op": "burn"}, 400),
        ({"op": "undo", "path": "/etc"}, 400),
    ],
)
def test_what_no_hand_draws_is_refused(desk: Desk, study: str, order: Answer, status: int) -> None:
    before = result_of(desk, study, 1).mask()
    assert asked(desk, study, **order) == ({"reason": "edit.refused"}, status)
    assert (draft_of(desk, study) == before).all()


def test_bytes_that_are_no_order_are_refused(desk: Desk, study: str) -> None:
    assert edit(desk, study, VISITOR, 1, b"\xff{") == ({"reason": "edit.refused"}, 400)
    assert asked(desk, study, number=7, op="open") == ({"reason": "edit.refused"}, 404)


def test_a_reviewed_result_becomes_a_case_to_train_on(desk: Desk, study: str, tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    until(lambda: desk.errands.training_case(study, VISITOR, 1, folder, ["bone"]).state == "done")
    index = json.loads((folder / "index.json").read_text())
    case = index["cases"][0]
    assert (case["contoured"], case["split"]) == (["bone"], "train")
    labels, geometry = read_label_map(folder / "train" / f"{case['id']}_label.nii.gz")
    bone = index["labels"]["bone"]
    mask = result_of(desk, study, 1).mask()
    assert set(np.unique(labels)) == {0, bone}
    assert (reorient(labels == bone, geometry.to_canonical) == (mask == bone)).all()
    dataset = read_index(folder / "index.json")
    assert dataset.of("train") == dataset.cases
    loaded = load_case(dataset.cases[0], dataset.labels, (7.0, 7.0, 8.0))
    assert loaded.known[bone]
    assert len(loaded.places[bone])


def test_labels_that_contradict_the_folders_are_refused(desk: Desk, study: str, tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps({"labels": {"liver": 1}, "cases": []}))
    until(lambda: desk.errands.training_case(study, VISITOR, 1, folder, ["bone"]).state == "failed")
    problem = desk.errands.training_case(study, VISITOR, 1, folder, ["bone"]).problem
    assert problem is not None
    assert "'liver'" in problem.message
    assert problem.advice
    assert json.loads((folder / "index.json").read_text())["cases"] == []
