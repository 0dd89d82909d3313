"""MLflow mirrors a finished run in one SQLite file; what goes wrong there costs no run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.errors import ConfigError
from medseg.models.store import CARD, read_card
from medseg.training.run import train_model
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
def test_a_store_that_cannot_be_written_costs_no_run(dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "mlruns").write_text("no folder")
    said: list[str] = []
    package = train_model(write_config(tmp_path, dataset), tmp_path / "run", report=said.append)
    assert package is not None
    assert package.is_dir()
    assert any(line.startswith("tracking: ") for line in said)
