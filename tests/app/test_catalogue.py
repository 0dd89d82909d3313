"""The installed models in words and figures, and those that are taken over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app.catalogue import models, own_shelf, put_on_shelf
from app.downloads import EXPORTS, NEEDS_DICOM
from app.references import reference_for
from app.services import Desk
from app.studies import Refused
from medseg.exports import FORMATS
from medseg.models.store import shelves
from tests.app.conftest import OTHER, VISITOR, until
from tests.models.importers.foreign_folders import write_nnunet


def test_models_say_what_they_find_how_well_and_what_they_are_not_for() -> None:
    found = {model.name: model for model in models()}
    assert next(iter(found)) == "head-neck-oar"
    assert all(model.field and model.limits and model.licence and model.organs for model in found.values())
    network = found["head-neck-oar"]
    card = json.loads((shelves()[-1] / "head-neck-oar" / "model.json").read_text("utf-8"))
    scores = {score.organ: score for score in network.scores}
    assert {organ: score.dice for organ, score in scores.items()} == {
        organ: row["dice"] for organ, row in card["metrics"]["organs"].items()
    }
    assert network.learned
    assert not found["tissue-hu"].learned
    assert found["tissue-hu"].scores == ()


def test_a_damaged_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(shelves()[-1] / "tissue-hu", tmp_path / "broken")
    (tmp_path / "broken" / "model.json").write_text("{")
    monkeypatch.setenv("MEDSEG_MODELS", str(tmp_path))
    with pytest.raises(Refused) as refused:
        models()
    assert refused.value.problem.advice


def test_a_shelf_of_ones_own_is_found_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDSEG_MODELS", raising=False)
    assert own_shelf().name == "models"
    put_on_shelf(tmp_path)
    put_on_shelf(tmp_path)
    assert shelves()[:-1] == [tmp_path]
    assert own_shelf() == tmp_path


def test_what_is_no_model_is_refused_and_only_the_asker_is_told(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "no model").mkdir()
    number = desk.imports.start(VISITOR, tmp_path / "no model", tmp_path / "shelf", "mine")
    until(lambda: desk.imports.view(VISITOR, number).state == "failed")
    problem = desk.imports.view(VISITOR, number).problem
    assert problem is not None
    assert problem.code == "ModelImportError"
    assert desk.imports.view(OTHER, number).state == "gone"


def test_a_model_of_another_tool_is_taken_over(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    monkeypatch.setenv("MEDSEG_MODELS", str(shelf))
    number = desk.imports.start(VISITOR, write_nnunet(tmp_path / "nnunet"), shelf, "mine")
    until(lambda: desk.imports.view(VISITOR, number).state not in ("queued", "running"))
    assert desk.imports.view(VISITOR, number).problem is None
    assert "mine" in [model.name for model in models()]


def test_references_are_those_of_the_model_at_hand() -> None:
    version = next(model.version for model in models() if model.name == "head-neck-oar")
    brainstem = reference_for("brainstem", "head-neck-oar", version)
    assert brainstem is not None
    assert 0 < brainstem.low_ml < brainstem.high_ml
    assert brainstem.source
    parotid = reference_for("parotid_gland_left", "a model that is gone", "1.0.0")
    assert parotid is not None  # published, whatever the model
    assert reference_for("brainstem", "head-neck-oar", "0.0.1") is None


def test_all_formats_are_offered() -> None:
    assert set(EXPORTS) == set(FORMATS)
    assert set(EXPORTS) >= NEEDS_DICOM
