"""MLflow mirrors a finished run in one SQLite file; what goes wrong there costs no run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.cli import main
from medseg.errors import ConfigError
from medseg.models.store import CARD, load_model, read_card
from medseg.training.run import train_model
from tests.inference.planted import write_package
from tests.training.conftest import settings


def write_config(folder: Path, index: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(settings(index, max_steps=4, log_steps=2, tracking=str(folder / "mlruns"), **changes))
    )
    return path


def test_without_the_library_it_is_said_before_the_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"MLflow is not installed\. pip install 'medseg\[train\]'"):
        train_model(write_config(tmp_path, dataset), tmp_path / "run", report=lambda line: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_run_is_mirrored_once_with_curves_scores_and_report(dataset: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    config = write_config(tmp_path, dataset)
    train_model(config, tmp_path / "run", report=lambda line: None)
    train_model(config, tmp_path / "run", resume=True, report=lambda line: None)  # again: the same run there
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("medseg").experiment_id])
    assert run.data.params["loop.max_steps"] == "4"
    assert run.info.status == "FINISHED"
    card = read_card(tmp_path / "run" / "package" / CARD)
    assert run.data.metrics["dice.mean"] == pytest.approx(card.metrics["mean_dice"])
    assert {metric.step for metric in client.get_metric_history(run.info.run_id, "train.loss")} == {2, 4}
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"report.html", "model.json"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_registry_follows_the_shelf(dataset: Path, tmp_path: Path) -> None:
    """Each version once, the first beside the run that made it; `current` goes where promote and rollback go."""
    mlflow = pytest.importorskip("mlflow")
    config, shelf, store = write_config(tmp_path, dataset), tmp_path / "shelf", tmp_path / "mlruns"
    train_model(config, tmp_path / "run", report=lambda line: None)
    package = load_model(tmp_path / "run" / "package")
    later = shutil.copytree(package.folder, tmp_path / "later")
    card = package.card.model_copy(update={"version": "9.0.0"})
    (later / CARD).write_text(card.model_dump_json(), encoding="utf-8")
    follow = ["-o", str(shelf), "--tracking", str(store)]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")

    def current() -> str:
        return str(client.get_model_version_by_alias(card.name, "current").tags["package"])

    for folder in (package.folder, later, later):
        assert run_cli("models", "register", str(folder), *follow) == 0
    assert current() == package.card.id
    versions = {one.tags["package"]: one for one in client.search_model_versions(f"name = '{card.name}'")}
    assert sorted(versions) == sorted([package.card.id, card.id])
    (run,) = client.search_runs([client.get_experiment_by_name("medseg").experiment_id])
    assert versions[package.card.id].run_id == run.info.run_id
    assert run_cli("models", "promote", card.id, *follow) == 0
    assert current() == card.id
    assert run_cli("models", "rollback", card.name, *follow) == 0
    assert current() == package.card.id


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_registry_that_cannot_follow_is_a_sentence_and_the_shelf_has_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "mlruns").write_text("no folder")
    package = write_package(tmp_path / "model")
    asked = ["-o", str(tmp_path / "shelf"), "--tracking", str(tmp_path / "mlruns")]
    assert run_cli("models", "register", str(package), *asked) == 74
    assert "could not follow" in capsys.readouterr().err
    assert (tmp_path / "shelf" / "threshold@1.2.3" / CARD).is_file()


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return int(done.value.code or 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_store_that_cannot_be_written_costs_no_run(dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "mlruns").write_text("no folder")
    said: list[str] = []
    package = train_model(write_config(tmp_path, dataset), tmp_path / "run", report=said.append)
    assert package is not None
    assert package.is_dir()
    assert any(line.startswith("tracking: ") for line in said)
