"""The command line: real processes where the process is the point, the entry point itself elsewhere."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medseg.cli import main
from tests.inference.planted import planted_volume, threshold_card, write_package
from tests.phantoms import phantom_volume, write_nifti

SCAN = phantom_volume((30, 26, 24), (5.0, 5.0, 5.5), orientation="LPS")


def medseg(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "medseg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_help_names_the_commands() -> None:
    done = medseg("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("segment", "models", "evaluate", "train", "Research use only"))
    assert done.stderr == ""


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-u", "-m", "medseg", "segment", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before a word was said
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""


def test_importing_medseg_is_quick_and_brings_no_torch() -> None:
    code = "import sys, medseg, medseg.cli; print([m for m in ('torch', 'monai', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_good_and_a_broken_scan(tmp_path: Path) -> None:
    """The good one is finished, the broken one is named, the exit code says both; a rerun computes nothing."""
    scan = write_nifti(tmp_path / "neck[1].nii.gz", SCAN)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(scan.read_bytes()[:2000])
    done = medseg("segment", scan, broken, "-o", tmp_path / "out", "--model", "tissue-hu")
    assert done.returncode == 3, done.stderr
    assert str(tmp_path / "out") in done.stdout
    assert "broken.nii.gz" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (row,) = [row for row in read_csv(next((tmp_path / "out").glob("*/measurements.csv"))) if row["organ"] == "bone"]
    assert float(row["volume_ml"]) > 5
    again = medseg("segment", scan, "-o", tmp_path / "out", "--model", "tissue-hu")
    assert again.returncode == 0, again.stderr
    assert "1 unchanged" in again.stdout


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_an_unknown_model_is_a_sentence_and_an_exit_code(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "scan.nii", SCAN)
    done = medseg("segment", scan, "-o", tmp_path / "out", "--model", "no-such-model")
    assert done.returncode == 66
    assert done.stderr.startswith("Error: No model named 'no-such-model'; installed: ")
    assert "tissue-hu" in done.stderr
    assert "Traceback" not in done.stderr


def exit_code(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_help_says_with_what_a_segmentation_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("segment", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 all fine, 3 some studies failed, 1 all failed, 130 interrupted." in shown
    assert "64 a setting, 65 no study found, 66 the model, 74 OUT." in shown
    (tmp_path / "none").mkdir()
    (tmp_path / "file").write_text("")
    asked = ("segment", tmp_path / "none", "--model", "tissue-hu", "-o")
    assert exit_code(*asked, tmp_path / "out", "--accept", " ") == 64
    assert exit_code(*asked, tmp_path / "out") == 65
    scan = write_nifti(tmp_path / "scan.nii", SCAN)
    assert exit_code("segment", scan, "--model", "tissue-hu", "-o", tmp_path / "file") == 74


def test_probabilities_lie_beside_the_mask_and_are_part_of_the_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = planted_volume((28, 26, 24), (4.0, 4.0, 4.0), orientation="LPS")
    scan, model = write_nifti(tmp_path / "scan.nii.gz", volume), write_package(tmp_path / "model")
    asked = ("segment", scan, "-o", tmp_path / "out", "--model", model, "--backend", "torch")
    assert exit_code(*asked, "--probabilities", "parotid_gland_left") == 0
    folder = tmp_path / "out" / "scan"
    percent, mask = (
        sitk.ReadImage(str(folder / name)) for name in ("probability_parotid_gland_left.nii.gz", "mask.nii.gz")
    )
    assert percent.GetDirection() == mask.GetDirection()
    assert percent.GetOrigin() == mask.GetOrigin()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(percent) > 50, sitk.GetArrayFromImage(mask) == 1)
    assert exit_code(*asked, "--probabilities", "parotid_gland_left") == 0
    assert "1 unchanged" in capsys.readouterr().out
    assert exit_code(*asked) == 0
    assert "1 done" in capsys.readouterr().out
    assert not list(folder.glob("probability_*"))
    assert exit_code(*asked, "--probabilities", "parotid") == 64
    assert capsys.readouterr().err.startswith("Error: 'parotid' is no organ of model threshold@1.2.3.")


def test_a_limit_of_memory_is_kept_or_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = write_nifti(tmp_path / "scan.nii.gz", planted_volume((30, 30, 30), (4.0, 4.0, 4.0)))
    model = write_package(tmp_path / "model")
    asked = ("segment", scan, "-o", tmp_path / "out", "--model", model)
    assert exit_code(*asked, "--max-memory", "20MB") == 1
    (row,) = read_csv(tmp_path / "out" / "manifest.csv")
    assert row["error"] == "ResourceError"
    assert row["message"].startswith("scan")
    assert "0.02 GB are allowed" in row["message"]
    assert exit_code(*asked, "--max-memory", "8GB") == 0
    run = json.loads((tmp_path / "out" / "scan" / "run.json").read_text())
    assert 0 < run["forecast"]["memory_mb"] < 8192
    assert run["backend"] == "torch"
    assert exit_code(*asked, "--max-memory", "lots") != 0
    assert "no amount of memory" in capsys.readouterr().err


def test_models_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("models", "--json") == 0
    assert "tissue-hu" in [card["name"] for card in json.loads(capsys.readouterr().out)]
    assert exit_code("models") == 0
    assert "tissue-hu" in capsys.readouterr().out
    assert exit_code("models", "tissue-hu") == 0
    assert "Intended use" in capsys.readouterr().out


def test_errors_keep_brackets_and_stay_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rich would read [/b] as markup; and a path that is wrapped cannot be copied."""
    name = str(tmp_path / ("a" * 90) / "[/b][red]")
    assert exit_code("models", name) == 66
    assert f"Error: No model named {name!r}; installed:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["segment"], ["segment", "x"], ["sgment"], ["models", "--jsn"]])
def test_a_wrong_call_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(("wrong", "right"), [("train chek", "train check"), ("models registr", "models register")])
def test_a_second_word_that_is_nearly_a_command_is_named(
    wrong: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*wrong.split(), "RUN/data", "-o", "C") == 2
    assert capsys.readouterr().err == f"Error: no command `medseg {wrong}`; did you mean `medseg {right}`?\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", "CONFIG / train check / train plan"),
        ("models", "import / register / promote / rollback / ensemble"),
        ("evaluate", "MASKS REFERENCES"),
        ("promote", "NAME@VERSION"),
        ("rollback", "NAME"),
    ],
)
def test_help_names_what_is_taken_and_what_belongs_to_it(
    command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(command, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert [word for word in words.split(" / ") if word not in text] == []


@pytest.mark.parametrize("command", ["segment", "models", "import", "export", "evaluate", "train", "benchmark"])
def test_every_command_has_help_worth_reading(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(command, "--help") == 0
    text = capsys.readouterr().out
    assert len(text) > 400
    assert "(required)" in text or command == "models"


def test_scores_are_shown_and_their_folder_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from medseg.imaging.nifti import write_label_map
    from tests.inference.planted import planted_labels

    volume = planted_volume((28, 26, 24), (4.0, 4.0, 4.0))
    for folder in ("predicted", "reference"):
        write_label_map(tmp_path / folder / "case.nii.gz", planted_labels(volume), volume.geometry)
    names = {"parotid_gland_left": 1, "parotid_gland_right": 2}
    index = {"labels": names, "cases": [{"id": "case", "split": "test", "contoured": list(names)}]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    arguments = [tmp_path / "predicted", tmp_path / "reference", "-o", tmp_path / "scores"]
    code = exit_code("evaluate", *arguments, "--index", tmp_path / "index.json")
    assert code == 0, capsys.readouterr()
    assert f"Scores: {tmp_path / 'scores'}" in capsys.readouterr().out
    assert (tmp_path / "scores" / "scores.csv").is_file()


def test_a_config_that_is_not_there_is_an_error_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("train", tmp_path / "nothing.yaml", "-o", tmp_path / "run") not in (0, 1)
    assert "nothing.yaml" in capsys.readouterr().err


def test_a_package_by_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_package(tmp_path / "mine", threshold_card(title="My own"))
    assert exit_code("models", folder) == 0
    assert "My own" in capsys.readouterr().out
