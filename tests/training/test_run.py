"""From one config to a scored package that segments, and the script that does it."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medseg.commands.training import train
from medseg.errors import ConfigError, DataError
from medseg.evaluation.calibration import Calibration
from medseg.imaging.emit import emit_json
from medseg.imaging.nifti import read_label_map, write_label_map
from medseg.inference.segmenter import build_segmenter
from medseg.models.store import CARD, WEIGHTS, load_model, read_card
from medseg.runtime.provenance import StageClock
from medseg.training.run import card_metrics, train_model
from medseg.training.run_report import calibrated
from medseg.training.trainer import Trainer
from medseg.training.validation import CALIBRATION
from tests.phantoms import phantom_labels, phantom_volume
from tests.training.conftest import LABELS, settings, write_case, write_index
from tests.training.test_cases import one_voxel_of

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train.py"


def write_config(folder: Path, index: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings(index, max_steps=3, **changes)))
    return path


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """Config, run folder and what was reported of one whole run."""
    folder, said = tmp_path_factory.mktemp("run"), []
    path = write_config(folder, dataset)
    assert train_model(path, folder / "out", report=said.append) == folder / "out" / "package"
    return path, folder / "out", said


def test_the_package_loads_and_segments_on_the_scans_grid(finished: tuple[Path, Path, list[str]]) -> None:
    package = load_model(finished[1] / "package")
    volume = phantom_volume(orientation="LPS", seed=20)
    raw = build_segmenter(package)(volume, StageClock())
    assert raw.label_map.labels.shape == volume.geometry.shape
    assert raw.label_map.geometry.matches(volume.geometry)


def test_the_card_holds_the_scores_of_the_validation_split(finished: tuple[Path, Path, list[str]]) -> None:
    metrics = read_card(finished[1] / "package" / CARD).metrics
    assert metrics["data"].endswith("validation split, 1 patients")
    assert set(metrics["organs"]) == set(LABELS)
    assert metrics["organs"]["parotid_gland_left"]["n"] == 1
    assert "plain_dice" in metrics["organs"]["spinal_cord"]
    assert 0 <= metrics["mean_dice"] <= 1
    assert metrics["left_right_swaps"] == 0
    saved = json.loads((finished[1] / "scores" / "scores.json").read_text())
    assert metrics["mean_dice"] == pytest.approx(saved["overall"]["dice"]["mean"], abs=1e-4)


def test_the_validation_masks_lie_on_the_scans_grid(finished: tuple[Path, Path, list[str]]) -> None:
    _, geometry = read_label_map(finished[1] / "validation" / "v0.nii.gz")
    assert geometry.matches(phantom_volume(seed=9).geometry)


def test_the_run_says_what_it_does(finished: tuple[Path, Path, list[str]]) -> None:
    first, step, verdict, *rest = finished[2]
    assert "of the step waits for data" in verdict
    assert (first, rest[:2]) == ("5 training cases", ["scoring on the validation split", "validated 1/1"])
    assert rest[2].startswith("report: ")
    assert step.startswith("step 3/3  loss ")
    assert {path.name for path in finished[1].iterdir()} == {
        ".lock",
        "cache",
        "profile.jsonl",
        "last.safetensors",
        "log.jsonl",
        "package",
        "pictures",
        "report.html",
        "scores",
        "validation",
    }


def test_the_report_shows_curves_scores_and_cases_and_every_picture_is_there(
    finished: tuple[Path, Path, list[str]],
) -> None:
    text = (finished[1] / "report.html").read_text()
    pictures = re.findall(r'<img src="([^"]+)"', text)
    assert set(pictures) == {
        "pictures/curves.png",
        "pictures/profile.png",
        "scores/plot.png",
        "pictures/v0_found.png",
        "pictures/v0_reference.png",
    }
    for picture in pictures:
        assert (finished[1] / picture).read_bytes().startswith(b"\x89PNG")
    assert "No contoured organ was found: nothing to calibrate." in text  # after three steps
    assert "3 steps in" in text
    assert "parotid_gland_left" in text
    assert "learning_rate: " in text
    assert str(finished[1]) not in text


def test_what_was_found_is_drawn_as_a_calibration_curve(tmp_path: Path) -> None:
    labels = np.ones(100, np.uint8)
    found = Calibration().seen(labels, np.full(100, 200, np.uint8), np.arange(100) % 2, [1])
    emit_json(tmp_path / CALIBRATION, found.to_json())
    said = " ".join(calibrated(tmp_path))
    assert "expected error 0.284" in said
    assert (tmp_path / "pictures/calibration.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_into_the_folder_is_refused_before_anything_is_read(
    finished: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    path, out, _ = finished
    with pytest.raises(ConfigError, match=r"holds a run already.*--resume"):
        train_model(path, out, overrides={"index": tmp_path / "nowhere.json"})


def test_resuming_a_finished_run_trains_no_further(finished: tuple[Path, Path, list[str]]) -> None:
    path, out, _ = finished
    before, said = (out / "package" / WEIGHTS).read_bytes(), []
    train_model(path, out, resume=True, report=said.append)
    assert "resumed at step 3" in said
    assert not any(line.startswith("step ") for line in said)
    assert (out / "package" / WEIGHTS).read_bytes() == before


@pytest.fixture
def unscored(tmp_path: Path) -> Path:
    """index.json of two patients to train on, without a validation split."""
    entries = [write_case(tmp_path, f"p{n}", "train", phantom_volume(seed=n)) for n in range(2)]
    return write_index(tmp_path, entries)


def test_the_command_trains_and_wins_over_the_config(
    unscored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path, tmp_path / "elsewhere.json")
    assert train(str(path), out=tmp_path / "out", max_steps=1, seed=4, index=unscored) == 0
    card = load_model(tmp_path / "out" / "package").card
    assert card.training["config"]["loop"]["max_steps"] == 1
    assert card.training["config"]["loop"]["seed"] == 4
    assert card.metrics == {}
    assert card.anatomy is None
    assert "Model package: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network.name": "UNett"}, "tiny\\.yaml: Unknown network 'UNett'; the catalogue has"),
        (
            {"network.options.deep_supervison": 1},
            "tiny\\.yaml: Network .*: no option deep_supervison; it has: in_channels",
        ),
        (
            {"network": {"name": "UNet", "options": {"stride": [2]}}},
            "tiny\\.yaml: Network UNet: no option stride; it has:",
        ),
        ({"patch_size": [16, 15, 16]}, "tiny\\.yaml: patch_size: 16 x 15 x 16 does not divide by 2"),
    ],
    ids=str,
)
def test_a_wrong_network_is_told_before_scans_are_read(
    unscored: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    for scan in unscored.parent.glob("*/*.nii.gz"):
        scan.write_bytes(b"not read")
    with pytest.raises(ConfigError, match=said):
        train_model(write_config(tmp_path, unscored), tmp_path / "out", overrides=change)


def test_a_run_that_is_interrupted_says_how_it_goes_on(
    unscored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Trainer[Any]):
        def train_step(self, *given: Any) -> Any:
            if self.step == 2:
                raise KeyboardInterrupt
            return super().train_step(*given)

    monkeypatch.setattr("medseg.training.run.Trainer", Interrupted)
    path, said = write_config(tmp_path, unscored), list[str]()
    often = {"loop.checkpoint_minutes": 1e-9}
    with pytest.raises(KeyboardInterrupt):
        train_model(path, tmp_path / "out", overrides=often, report=said.append)
    assert said[-1] == "Stopped at step 2; go on with --resume, from step 2."
    with pytest.raises(KeyboardInterrupt):
        train_model(path, tmp_path / "out", resume=True, report=said.append)
    assert said[-1] == "Stopped at step 2; go on with --resume, from step 2."


@pytest.mark.parametrize("number", [1, 2])
def test_empty_masks_are_said_and_nothing_else_is_no_data(tmp_path: Path, number: int) -> None:
    volumes = [phantom_volume(seed=n) for n in range(2)]
    entries = [write_case(tmp_path, f"p{n}", "train", volume) for n, volume in enumerate(volumes)]
    for n, volume in enumerate(volumes[:number]):
        write_label_map(tmp_path / f"train/p{n}_label.nii.gz", np.zeros(volume.hu.shape), volume.geometry)
    said: list[str] = []
    config = write_config(tmp_path, write_index(tmp_path, entries))
    if number == 2:
        with pytest.raises(DataError, match=r"Every training mask is empty.*medseg train check"):
            train_model(config, tmp_path / "out", report=said.append)
    else:
        train_model(config, tmp_path / "out", overrides={"loop.max_steps": 1}, report=said.append)
        assert any(line.startswith("empty masks: p0: they teach") for line in said)


def test_organs_too_small_for_the_training_grid_are_said(tmp_path: Path) -> None:
    volumes, said = [phantom_volume(seed=n) for n in range(2)], list[str]()
    config = write_config(
        tmp_path,
        write_index(tmp_path, [write_case(tmp_path, f"p{n}", "train", volume) for n, volume in enumerate(volumes)]),
    )
    labels = one_voxel_of(phantom_labels(volumes[1]), LABELS["spinal_cord"])
    write_label_map(tmp_path / "train/p1_label.nii.gz", labels, volumes[1].geometry)
    train_model(config, tmp_path / "out", overrides={"loop.max_steps": 1}, report=said.append)
    assert said[1] == (
        "spinal_cord is too small for a voxel of spacing_mm in 1 of 2 cases, p1 the first; it counts as unknown there"
    )
    for n, volume in enumerate(volumes):
        labels = one_voxel_of(phantom_labels(volume), LABELS["spinal_cord"])
        write_label_map(tmp_path / f"train/p{n}_label.nii.gz", labels * (labels == 3), volume.geometry)
    with pytest.raises(DataError, match="too small for spacing_mm: there is nothing to learn"):
        train_model(config, tmp_path / "again", report=said.append)


def test_without_training_cases_there_is_nothing_to_do(tmp_path: Path) -> None:
    entry = write_case(tmp_path, "v", "validation", phantom_volume())
    with pytest.raises(DataError, match="no training cases"):
        train_model(write_config(tmp_path, write_index(tmp_path, [entry])), tmp_path / "out")


def test_figures_that_no_case_decides_are_none() -> None:
    from medseg.evaluation import evaluate_arrays
    from medseg.evaluation.policy import Settings
    from medseg.evaluation.scorecard import Scorecard

    volume = phantom_volume((8, 8, 8))
    empty = np.zeros((8, 8, 8), np.uint8)
    rules = Settings(within_contoured=("spinal_cord",))
    rows = evaluate_arrays(empty, empty, volume.geometry, labels=LABELS, known=frozenset(), settings=rules, case="a")
    metrics = card_metrics(Scorecard(tuple(rows), tuple(LABELS), ("a",), rules), "nothing")
    assert metrics["mean_dice"] is None
    assert metrics["organs"]["spinal_cord"]["plain_dice"] is None


def test_the_script_has_the_commands_arguments() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    for word in ("CONFIG", "--out", "--max-steps", "--seed", "--index", "--resume"):
        assert word in done.stdout.upper() or word in done.stdout


def test_the_script_names_what_is_wrong_and_ends_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "no-such-preset", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == ConfigError.exit_code
    assert "'no-such-preset'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_second_training_does_not_write_where_one_is_at_work(tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from medseg.runtime.lock import busy\n"
        "with busy(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=r"Another training is at work in .*run"):
            train_model("smoke", tmp_path / "run")
        process.kill()
