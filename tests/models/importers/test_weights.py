"""Checkpoints: NumPy scalars are taken, code is refused and never runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.errors import ModelImportError
from medseg.models.importers.nnunet import read_nnunet
from medseg.models.importers.weights import pick_tensors, read_checkpoint, without_prefix
from tests.models.importers.foreign_folders import checkpoint, fold_weights, write_nnunet


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "plain pickle"])
def test_a_pickle_bomb_is_refused_and_does_not_go_off(legacy: bool, tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "theirs")
    content = checkpoint(fold_weights("plain_conv_unet", 0)) | {"logging": Bomb(tmp_path / "exploded")}
    path = folder / "fold_0/checkpoint_final.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        ModelImportError, match=r"checkpoint_final.pth: .*nothing was run|no PyTorch checkpoint"
    ) as caught:
        read_nnunet(folder)
    assert not (tmp_path / "exploded").exists()
    if not legacy:
        assert "posix.mkdir" in str(caught.value) or "nt.mkdir" in str(caught.value)


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ModelImportError, match=r"model\.pt: "):
        read_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_numpy_scalars_of_both_numpys_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "log.pth"
    torch.save({"a": np.float64(0.25), "b": [np.float32(0.5), np.int64(3)]}, path)
    assert read_checkpoint(path) == {"a": 0.25, "b": [0.5, 3]}
    as_numpy_1_wrote_it(path, tmp_path / "old.pth")
    assert read_checkpoint(tmp_path / "old.pth") == {"a": 0.25, "b": [0.5, 3]}


def as_numpy_1_wrote_it(path: Path, out: Path) -> None:
    """The same file with NumPy's old module name in its pickle."""
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(out, "w") as old:
        for entry in new.infolist():
            content = new.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            old.writestr(entry, content)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"text", b"\x80\x02}q\x00."])
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(ModelImportError, match=r"model\.pt: is damaged or no PyTorch checkpoint"):
        read_checkpoint(path)


def test_torchscript_is_a_program(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(torch.nn.Conv3d(1, 1, 1)), path)
    with pytest.raises(ModelImportError, match="TorchScript"):
        read_checkpoint(path)


def test_a_state_dict_is_found_alone_or_by_its_key(tmp_path: Path) -> None:
    weights = {"a": torch.zeros(1)}
    for content in (weights, {"model": weights, "epoch": 3}):
        assert pick_tensors(content, tmp_path, ("model",)) == weights
    for content in ({"epoch": 3}, {}, [1], {"model": {"a": 1}}):
        with pytest.raises(ModelImportError, match="holds no state dict"):
            pick_tensors(content, tmp_path, ("model",))


def test_prefixes_of_wrappers_go() -> None:
    assert set(without_prefix({"module._orig_mod.a.b": torch.zeros(1), "c": torch.zeros(1)})) == {"a.b", "c"}
