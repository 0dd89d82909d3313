"""`medseg models import` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.cli import main
from medseg.models.store import load_model
from tests.models.importers.foreign_folders import write_nnunet
from tests.training.test_checkpoint import no_file_above


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.mark.parametrize("command", [["models", "import"], ["import"]])
def test_a_folder_becomes_a_package(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_nnunet(tmp_path / "theirs", folds=("0", "1"))
    options = ["--name", "kidney", "-o", tmp_path / "shelf", "--folds", "1", "--orientation", "RAS", "--faithful"]
    assert run(*command, source, *options) == 0
    out = capsys.readouterr().out
    assert f"Model package: {tmp_path / 'shelf' / 'kidney'}" in out
    assert "Organs: kidney, left; spinal cord" in out
    assert "nobody scored it here" in out
    card = load_model(tmp_path / "shelf" / "kidney").card
    assert list(card.training["checkpoints"]) == ["fold_1/checkpoint_final.pth"]
    assert card.input is not None
    assert card.input.mirror_axes == (0, 1, 2)


def test_the_shelf_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_nnunet(tmp_path / "theirs")
    monkeypatch.delenv("MEDSEG_MODELS", raising=False)
    assert run("models", "import", source, "--name", "mine") == 64
    monkeypatch.setenv("MEDSEG_MODELS", str(tmp_path / "shelf"))
    assert run("models", "import", source, "--name", "mine") == 0
    assert load_model("mine").card.name == "mine"
    assert run("models", "import", source, "--name", "mine") == 64  # taken
    assert run("models", "import", source, "--name", "../mine") == 64
    assert run("models", "import", "--name", "none") == 64


def test_a_refusal_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run("models", "import", tmp_path / "empty", "--name", "x", "-o", tmp_path) == 66
    assert capsys.readouterr().err.startswith("Error: empty: is neither an nnU-Net v2 model folder")


def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "import", write_nnunet(tmp_path / "theirs"), "--name", "mine", "-o", tmp_path / "shelf"]
    with no_file_above(1000):
        assert run(*command) == 74
    assert "weights.safetensors could not be written" in capsys.readouterr().err
    assert run(*command) == 0
    assert load_model(tmp_path / "shelf" / "mine").card.name == "mine"
