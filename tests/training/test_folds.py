"""Cross-validation: every case validates in one fold, and keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medseg.commands.training import train
from medseg.errors import ConfigError
from medseg.models.store import load_model
from medseg.training.cases import read_index
from medseg.training.config import checked, load_config
from medseg.training.subset import deal_folds
from tests.training.conftest import settings


@pytest.mark.parametrize("count", [5, 6, 13, 500])
def test_every_patient_validates_in_one_of_nearly_equal_folds(count: int) -> None:
    names = [f"case {n}" for n in range(count)]
    dealt = deal_folds(names, 5)
    sizes = [list(dealt.values()).count(fold) for fold in range(5)]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    assert deal_folds([*names[::-1], *names], 5) == dealt


def test_more_folds_than_patients_are_refused(dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(dataset, max_steps=1)))
    with pytest.raises(ConfigError, match="6 patients cannot be parted into 7 folds"):
        train(str(config), out=tmp_path / "out", folds=7, fold=0)


def test_a_fold_that_is_not_there_is_refused(dataset: Path) -> None:
    with pytest.raises(ConfigError, match="folds are numbered 0 to 2"):
        checked(settings(dataset, folds={"count": 3, "number": 3}))


def test_the_command_trains_one_fold(dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(dataset, max_steps=1)))
    assert load_config(config, {"folds.count": 2, "folds.number": 1}).folds is not None
    dealt = deal_folds([case.patient for case in read_index(dataset).cases], 2)
    fold = dealt["p0"]
    assert train(str(config), out=tmp_path / "out", folds=2, fold=fold) == 0
    index = read_index(tmp_path / "out" / "data" / f"fold-{fold}-of-2" / "index.json")
    held_out = [case.id for case in index.of("validation")]
    assert "p0" in held_out
    assert len(index.cases) == 6
    assert held_out == [case.id for case in read_index(dataset).cases if dealt[case.patient] == fold]
    card = load_model(tmp_path / "out" / "package").card
    assert card.training["cases"] == 6 - len(held_out)
    assert f"fold {fold} of 2" in card.metrics["data"]
