"""MLflow as a mirror of finished runs: one SQLite file and a folder, no server. The run's own folder stays the truth.

`mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db` shows and compares them. Nothing that goes wrong here costs a
run: it is said, and the run has its folder all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError
from medseg.models.card import ModelCard
from medseg.training.config import TrainConfig
from medseg.training.journal import read_journal

EXPERIMENT = "medseg"
RUN = "mlflow.json"


def require_mlflow() -> None:
    """Look for the library before a run starts that is to be mirrored.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        advice = "pip install 'medseg[train]', or leave `tracking` out."
        raise ConfigError("tracking: MLflow is not installed.", advice=advice) from error


def mirror(out: Path, store: Path, settings: TrainConfig, card: ModelCard, report: Path) -> str:
    """Write a finished run into the store at `store`; one that is there already is brought up to date.

    Args:
        out: the run's folder; `mlflow.json` in it remembers the run's id.
        store: gets mlflow.db and the artifacts.
        settings: of the run, its parameters there.
        card: of the package, with its scores.
        report: report.html, kept as an artifact beside the card.

    Returns:
        The run's id in MLflow.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    store.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=f"sqlite:///{(store / 'mlflow.db').resolve()}")
    found = client.get_experiment_by_name(EXPERIMENT)
    artifacts = (store / "artifacts").resolve().as_uri()
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, artifacts)
    known = json.loads((out / RUN).read_text(encoding="utf-8"))["run"] if (out / RUN).is_file() else None
    try:
        run = client.get_run(known).info.run_id if known else None
    except MlflowException:  # another store, or the run was deleted there
        run = None
    if run is None:
        run = client.create_run(experiment, run_name=f"{settings.name} {settings.version}").info.run_id
        (out / RUN).write_text(json.dumps({"run": run}), encoding="utf-8")
        shown = dict(_flat(settings.model_dump(mode="json", exclude={"card", "index", "cache", "tracking"})))
        client.log_batch(run, params=[Param(key, str(value)[:500]) for key, value in shown.items()])
    rows = list(_metrics(read_journal(out), card))
    tags = [
        RunTag("package", f"{card.name} {card.version}"),
        *(RunTag(f"sha256.{n}", h) for n, h in card.files.items()),
    ]
    for first in range(0, len(rows), 900):
        part = [Metric(name, value, when, step) for name, value, when, step in rows[first : first + 900]]
        client.log_batch(run, metrics=part, tags=tags)
    client.log_artifact(run, str(report))
    client.log_artifact(run, str(out / "package" / "model.json"))
    client.set_terminated(run)
    return str(run)


def _metrics(entries: list[dict[str, Any]], card: ModelCard) -> Iterator[tuple[str, float, int, int]]:
    """(name, value, counted milliseconds, step) of curves and final scores."""
    for entry in entries:
        when, step = int(1000 * entry.get("seconds", 0)), int(entry["step"])
        for key in ("loss", "seconds_per_step", "waiting_share", "learning_rate"):
            if isinstance(entry.get(key), (int, float)):
                yield f"train.{key}", float(entry[key]), when, step
        for name, value in entry.get("validation", {}).items():
            yield f"look.{name}", float(value), when, step
    last = int(entries[-1]["step"]) if entries else 0
    metrics = card.metrics or {}
    if metrics.get("mean_dice") is not None:
        yield "dice.mean", float(metrics["mean_dice"]), 0, last
    for organ, row in metrics.get("organs", {}).items():
        if row["dice"] is not None:
            yield f"dice.{organ}", float(row["dice"]), 0, last


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
