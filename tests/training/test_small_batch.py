"""The first stage: what a long run needs is tried in seconds, and the second starts only where that was sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from medseg.commands.training import train
from medseg.errors import DataError
from medseg.models.store import load_model
from medseg.training import small_batch
from medseg.training import trainer as trainers
from medseg.training.cases import data_digest, load_cases, read_index
from medseg.training.checkpoint import LAST
from medseg.training.config import SmallBatchConfig, load_config
from medseg.training.distributed import Ranks
from medseg.training.loop import LoopConfig
from medseg.training.run import train_model
from medseg.training.small_batch import NOTHING_SCORED, forecast_minutes
from medseg.training.small_batch_result import RESULT, digest, read_small_batch
from tests.phantoms import phantom_volume
from tests.training.conftest import settings, write_case, write_index

SMALL = {"cases": 2, "batches": 2, "steps": 16}


def write_config(folder: Path, index: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    given: dict[str, Any] = {"small_batch": SMALL, "max_steps": 3, "learning_rate": 1e-2, **changes}
    path.write_text(yaml.safe_dump(settings(index, **given)))
    return path


@pytest.fixture(scope="module")
def tried(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """Config, run folder and words of a run that stopped after the first stage."""
    folder = tmp_path_factory.mktemp("small")
    said: list[str] = []
    config = write_config(folder, dataset)
    assert train_model(config, folder / "run", stage="small", report=said.append) is None
    return config, folder / "run", said


def test_it_tries_the_whole_way_and_says_what_it_found(tried: tuple[Path, Path, list[str]]) -> None:
    _, run, said = tried
    found = read_small_batch(run)
    assert found is not None
    assert found.sound
    assert len(found.losses) == 16
    assert found.loss_before == pytest.approx(sum(found.losses[:2]) / 2, abs=1e-4)
    assert found.loss_after == pytest.approx(sum(found.losses[-2:]) / 2, abs=1e-4)
    assert found.loss_after < 0.85 * found.loss_before
    assert found.validated == 1
    assert found.patches_per_second > 0
    assert found.memory_mb > 50
    assert load_model(run / "small_batch" / "package").card.name == "tiny"
    assert not (run / LAST).exists()
    assert not (run / "package").exists()
    text = " ".join(said)
    assert "sound" in text
    assert "full training will take about" in text
    page = (run / "report.html").read_text()
    assert "Small-batch validation" in page
    assert (run / "pictures" / "small_batch.png").read_bytes().startswith(b"\x89PNG")


def test_the_full_training_takes_it_over_and_has_the_same_weights_as_without(
    tried: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    config, run, _ = tried
    said: list[str] = []
    assert train(str(config), out=run, stage="small") == 0
    train_model(config, run, report=said.append)
    assert any("was sound with these settings already" in line for line in said)
    train_model(config, tmp_path / "full", stage="full", report=said.append)
    assert not (tmp_path / "full" / RESULT).exists()
    assert (run / LAST).read_bytes() == (tmp_path / "full" / LAST).read_bytes()
    page = (run / "report.html").read_text()
    assert page.index("Small-batch validation") < page.index("Training</h2>")
    assert "Profile" in page
    assert "of the step waits for data" in page


def test_with_other_settings_it_is_done_anew(
    dataset: Path, tried: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    """And with other data."""
    found = read_small_batch(tried[1])
    assert found is not None
    assert read_small_batch(tried[1], found.of) == found
    usual, other = load_config(tried[0]), load_config(write_config(tmp_path, dataset, batch_size=1))
    index = read_index(dataset)
    seen = data_digest(list(load_cases(index.of("train"), index.labels, usual.spacing_mm)))
    assert digest(usual, seen) == found.of
    assert read_small_batch(tried[1], digest(other, seen)) is None
    assert read_small_batch(tried[1], digest(usual, "others")) is None


def test_memory_is_that_of_all_ranks_of_the_computer_and_of_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    class Profiler:
        peak_memory_mb = 300.0

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    taken = small_batch._memory_mb(Profiler(), Ranks())  # type: ignore[arg-type]
    assert taken == 1200
    monkeypatch.setattr(small_batch, "total_mb", lambda: 1300.0)
    (reason,) = small_batch._reasons(SmallBatchConfig(), 2.0, 0.1, taken, Ranks(), scored=True)
    assert reason.startswith("1,200 of 1,300 MB are taken")


def test_both_stages_keep_their_graphs_in_one_folder(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    def uncompiled(model: nn.Module, device: torch.device, folder: Path, say: Any) -> nn.Module:
        folders.append(folder)
        return model

    monkeypatch.setattr(trainers, "compiled", uncompiled)
    train_model(write_config(tmp_path, dataset, compile=True), tmp_path / "run", report=lambda line: None)
    assert folders == [tmp_path / "run" / "graphs"] * 2


def test_the_others_wait_for_the_first_rank_to_score_before_a_collective_begins(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("_validate", "wait_for_all", "from_first"):
        original = getattr(small_batch, name)
        monkeypatch.setattr(small_batch, name, lambda *a, n=name, o=original: done.append(n) or o(*a))
    train_model(write_config(tmp_path, dataset), tmp_path / "run", stage="small", report=lambda line: None)
    assert done == ["from_first", "_validate", "wait_for_all", "from_first"]


def test_what_does_not_learn_is_not_trained_but_on_request(dataset: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, dataset, learning_rate=1e-9)
    with pytest.raises(DataError, match=r"not sound: the loss of a few batches went from .* --stage full"):
        train(str(config), out=tmp_path / "run")
    assert not (tmp_path / "run" / LAST).exists()
    assert json.loads((tmp_path / "run" / RESULT).read_text())["sound"] is False
    assert "NOT sound" in (tmp_path / "run" / "report.html").read_text()
    assert train(str(config), out=tmp_path / "run", stage="full") == 0


def test_too_few_steps_for_a_verdict_are_not_blamed_on_the_data(dataset: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, dataset, small_batch={"cases": 1, "batches": 4, "max_minutes": 1e-3})
    with pytest.raises(DataError, match=r"fewer than 8 steps fitted into 0\.001 minutes: whether it learns is unknown"):
        train(str(config), out=tmp_path / "run")
    assert train(str(config), out=tmp_path / "run", stage="small") == 3


def test_validation_cases_in_which_nothing_can_be_scored_are_not_sound(dataset: Path, tmp_path: Path) -> None:
    index = json.loads(dataset.read_text())
    (tmp_path / "train").symlink_to(dataset.parent / "train")
    entries = [case for case in index["cases"] if case["split"] == "train"]
    entries.append(write_case(tmp_path, "v0", "validation", phantom_volume(seed=9), contoured=()))
    config = write_config(tmp_path, write_index(tmp_path, entries))
    train_model(config, tmp_path / "run", stage="small", report=lambda line: None)
    found = read_small_batch(tmp_path / "run")
    assert found is not None
    assert found.reasons == (NOTHING_SCORED,)
    assert not found.sound


def test_a_data_set_without_validation_is_tried_on_training_cases(dataset: Path, tmp_path: Path) -> None:
    index = json.loads(dataset.read_text())
    index["cases"] = [case for case in index["cases"] if case["split"] == "train"]
    (tmp_path / "train").symlink_to(dataset.parent / "train")
    (tmp_path / "index.json").write_text(json.dumps(index))
    config = write_config(tmp_path, tmp_path / "index.json")
    train_model(config, tmp_path / "run", stage="small", report=lambda line: None)
    found = read_small_batch(tmp_path / "run")
    assert found is not None
    assert found.validated == 2


@pytest.mark.parametrize(
    ("loop", "minutes"),
    [
        ({"max_steps": 600}, (600 * 2 + 30) / 60),
        ({"max_steps": 600, "validate_steps": 100}, (600 * 2 + 7 * 30) / 60),
        ({"max_steps": 600, "validate_steps": 100, "max_minutes": 10}, (600 + 4 * 30) / 60),
    ],
)
def test_the_forecast_counts_steps_limits_and_looks(loop: dict[str, Any], minutes: float) -> None:
    assert forecast_minutes(LoopConfig.model_validate(loop), 2.0, 30.0) == pytest.approx(minutes)


def test_a_damaged_result_is_none(tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text('{"sound": true}')
    assert read_small_batch(tmp_path) is None
