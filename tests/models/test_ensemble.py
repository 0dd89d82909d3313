"""Ensembles: the mean of the members' logits, as one package that segments."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medseg.api import segment
from medseg.cli import main
from medseg.errors import ConfigError
from medseg.inference.backends.torch_backend import load_network
from medseg.models.ensemble import make_ensemble
from medseg.models.store import CARD, WEIGHTS, ModelPackage, load_model
from medseg.models.versions import LOCK, new_place, promote, register, versions_of
from medseg.runtime.options import Options
from tests.inference.backends.packages import PATCH, tiny_package
from tests.inference.planted import planted_volume, write_package
from tests.training.test_checkpoint import no_file_above


@pytest.fixture
def members(tmp_path: Path) -> list[ModelPackage]:
    """Two trainings of one config: the same card, other weights."""
    one = tiny_package(tmp_path / "one")
    weights = {
        key: tensor + 0.1 * torch.randn_like(tensor) if tensor.is_floating_point() and "running" not in key else tensor
        for key, tensor in load_file(one.file(WEIGHTS)).items()
    }
    return [one, load_model(write_package(tmp_path / "other", one.card, weights))]


def test_logits_are_the_mean_of_the_members(members: list[ModelPackage], tmp_path: Path) -> None:
    made = load_model(make_ensemble([member.folder for member in members], tmp_path / "shelf", "both"))
    tile = torch.rand(1, 1, *PATCH) * 4 - 1
    with torch.inference_mode():
        alone = [load_network(member)(tile) for member in members]
        together = load_network(made)(tile)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2, atol=1e-5, rtol=1e-5)
    assert made.card.label_table.names == members[0].card.label_table.names
    assert made.card.input == members[0].card.input
    assert made.card.metrics == {}
    assert [row["sha256"] for row in made.card.training["members"]] == [member.sha256 for member in members]
    assert "2 times as long" in made.card.limits[-1]


def test_the_command_writes_a_package_that_segments(
    members: list[ModelPackage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(member.folder) for member in members]
    with pytest.raises(SystemExit) as end:
        main(["models", "ensemble", *folders, "--name", "both", "-o", str(tmp_path / "shelf")])
    assert end.value.code == 0
    assert str(tmp_path / "shelf" / "both") in capsys.readouterr().out
    volume = planted_volume((24, 22, 20), (4.0, 4.0, 4.0))
    result = segment(volume, model=str(tmp_path / "shelf" / "both"), options=Options("torch", "fp32"))
    assert result.mask.shape == volume.hu.shape
    assert np.issubdtype(result.mask.dtype, np.uint8)


def test_what_does_not_fit_together_is_refused(members: list[ModelPackage], tmp_path: Path) -> None:
    one, other = (member.folder for member in members)
    wide = tiny_package(tmp_path / "wide", channels=[6, 8]).folder
    for given, reason in (
        ([one], "two members or more"),
        ([one, one], "each of them once"),
        ([one, wide], "differ in their network"),
        ([one, "tissue-hu"], "works by rules"),
    ):
        with pytest.raises(ConfigError, match=reason):
            make_ensemble(given, tmp_path / "shelf", "both")
    assert not (tmp_path / "shelf").exists()
    make_ensemble([one, other], tmp_path / "shelf", "both")
    with pytest.raises(ConfigError, match="is there already"):
        make_ensemble([one, other], tmp_path / "shelf", "both")
    assert (tmp_path / "shelf" / "both" / CARD).is_file()


def test_a_version_is_not_replaced_and_a_name_keeps_its_meaning(
    members: list[ModelPackage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    monkeypatch.setenv("MEDSEG_MODELS", str(shelf))
    used = register(members[0].folder, shelf)
    name = members[0].card.name
    folders = [member.folder for member in members]
    with pytest.raises(ConfigError, match=rf"{used.id} stands on .* already"):
        make_ensemble(folders, shelf, name, version=members[0].card.version)
    assert not (shelf / name).exists()
    make_ensemble(folders, shelf, name, version="9.0.0")
    assert load_model(name).sha256 == members[0].sha256  # until the new one is promoted
    assert [version.id for version in versions_of(name, shelf) if version.current] == [used.id]
    promote(f"{name}@9.0.0", shelf)
    assert load_model(name).card.version == "9.0.0"


def test_a_full_disk_is_a_sentence_and_leaves_nothing_in_the_way(
    members: list[ModelPackage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = tmp_path / "shelf"
    command = ["models", "ensemble", *[str(member.folder) for member in members], "--name", "both", "-o", str(shelf)]
    with no_file_above(1000), pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 74
    assert "weights.safetensors could not be written" in capsys.readouterr().err
    assert [path.name for path in shelf.iterdir()] == [LOCK]
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 0
    assert load_model(shelf / "both").card.name == "both"


def test_what_a_kill_left_is_not_in_the_way_of_the_next(members: list[ModelPackage], tmp_path: Path) -> None:
    shelf, child = tmp_path / "shelf", os.fork()
    if child == 0:
        try:
            with new_place(shelf, "both", "1.0.0") as folder:
                (folder / WEIGHTS).write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)  # never on with the tests
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (shelf / "both").exists()
    assert list(shelf.rglob(WEIGHTS))
    make_ensemble([member.folder for member in members], shelf, "both")
    assert sorted(path.name for path in shelf.iterdir()) == [LOCK, "both"]
