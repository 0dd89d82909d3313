"""MLflow as a mirror of runs and versions: one SQLite file and a folder, no server. Our own folders stay the truth.

`mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db` shows and compares them. Nothing that goes wrong here costs a
run: it is said, and the run has its folder all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import ConfigError
from medseg.models.card import ModelCard
from medseg.models.store import CARD, read_card
from medseg.models.versions import Version
from medseg.training.config import TrainConfig
from medseg.training.journal import read_journal

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "medseg"
RUN = "mlflow.json"
CURRENT = "current"


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
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    client, experiment = _open(store)
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
        RunTag("package", card.id),
        *(RunTag(f"sha256.{n}", h) for n, h in card.files.items()),
    ]
    for first in range(0, len(rows), 900):
        part = [Metric(name, value, when, step) for name, value, when, step in rows[first : first + 900]]
        client.log_batch(run, metrics=part, tags=tags)
    client.log_artifact(run, str(report))
    client.log_artifact(run, str(out / "package" / "model.json"))
    client.set_terminated(run)
    return str(run)


def mirror_versions(versions: Sequence[Version], store: Path) -> None:
    """Bring the model registry of `store` up to date with a shelf: its versions of one model, each beside its run.

    The alias `current` stands on the version that the bare name means; MLflow numbers versions by itself, ours is the
    tag `package`.

    Args:
        versions: of one name; folders of packages.
        store: holds mlflow.db; made where it is missing.
    """
    client, experiment = _open(store)
    for version in versions:
        card = read_card(version.folder / CARD)
        number = _registered(client, card) or _enter(client, experiment, card, version.folder)
        if version.current:
            client.set_registered_model_alias(card.name, CURRENT, number)
    if versions and not any(version.current for version in versions):  # the name means a model of another shelf
        client.delete_registered_model_alias(card.name, CURRENT)


def _registered(client: MlflowClient, card: ModelCard) -> str | None:
    """The number that this version has in the registry; None as long as it is not there."""
    known = client.search_model_versions(f"name = '{card.name}'")
    return next((str(one.version) for one in known if one.tags.get("package") == card.id), None)


def _enter(client: MlflowClient, experiment: str, card: ModelCard, folder: Path) -> str:
    if not client.search_registered_models(f"name = '{card.name}'"):
        client.create_registered_model(card.name, description=card.title)
    runs = client.search_runs([experiment], f"tags.package = '{card.id}'", max_results=1)
    tags = {"package": card.id} | {f"sha256.{name}": digest for name, digest in card.files.items()}
    score = card.metrics.get("mean_dice")
    tags |= {} if score is None else {"mean_dice": str(score)}
    run = runs[0].info.run_id if runs else None
    source, about = folder.resolve().as_uri(), card.description
    return str(client.create_model_version(card.name, source, run, tags, description=about).version)


def _open(store: Path) -> tuple[MlflowClient, str]:
    """A client of the store, and the id of the experiment that holds our runs."""
    from mlflow import MlflowClient

    store.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=f"sqlite:///{(store / 'mlflow.db').resolve()}")
    found = client.get_experiment_by_name(EXPERIMENT)
    artifacts = (store / "artifacts").resolve().as_uri()
    return client, found.experiment_id if found else client.create_experiment(EXPERIMENT, artifacts)


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
