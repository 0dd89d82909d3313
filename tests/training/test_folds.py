"""Cross-validation: every case validates in one fold, and keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medseg.cli import train
from medseg.errors import ConfigError
from medseg.models.store import load_model
from medseg.training.cases import read_index
from medseg.training.config import checked, load_config
from medseg.training.subset import fold_of
from tests.training.conftest import settings


def test_every_case_validates_in_one_fold_and_keeps_it_when_others_come() -> None:
    names = [f"case {n}" for n in range(500)]
    folds = [fold_of(name, 5) for name in names]
    assert set(folds) == set(range(5))
    assert all(70 < folds.count(fold) < 130 for fold in range(5))
    assert [fold_of(name, 5) for name in names[::-1]] == folds[::-1]


def test_a_fold_that_is_not_there_is_refused(dataset: Path) -> None:
    with pytest.raises(ConfigError, match="folds are numbered 0 to 2"):
        checked(settings(dataset, folds={"count": 3, "number": 3}))


def test_the_command_trains_one_fold(dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(dataset, max_steps=1)))
    assert load_config(config, {"folds.count": 2, "folds.number": 1}).folds is not None
    fold = fold_of("p0", 2)
    assert train(str(config), out=tmp_path / "out", folds=2, fold=fold) == 0
    index = read_index(tmp_path / "out" / "data" / f"fold-{fold}-of-2" / "index.json")
    held_out = [case.id for case in index.of("validation")]
    assert "p0" in held_out
    assert len(index.cases) == 6
    assert held_out == [case.id for case in read_index(dataset).cases if fold_of(case.id, 2) == fold]
    card = load_model(tmp_path / "out" / "package").card
    assert card.training["cases"] == 6 - len(held_out)
    assert f"fold {fold} of 2" in card.metrics["data"]
