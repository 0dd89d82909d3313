"""Nothing in the data is run: no pickle, no eval, no shell, no reader or writer outside its door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from medseg.errors import MedsegError
from medseg.imaging import read_volume
from tests.packaging.checkout import ROOT

FORBIDDEN = {
    "pickle.load", "pickle.loads", "joblib.load", "marshal.loads", "shelve.open", "dill.load",
    "yaml.load", "yaml.unsafe_load", "os.system", "os.popen", "eval", "exec", "subprocess.getoutput",
}  # fmt: skip
SAFE_LOADERS = (["_WithoutAliases"],)
DOORS = {
    "nib.load": ("medseg/imaging/",),
    "nib.save": ("medseg/imaging/",),
    "sitk.ReadImage": ("medseg/imaging/",),
    "sitk.WriteImage": (),
    "pydicom.dcmread": ("medseg/imaging/", "medseg/exports/"),
    "archive.extractall": (),
    "zipfile.ZipFile.extractall": (),
}


def _sources() -> Iterator[tuple[str, ast.AST]]:
    for folder in ("medseg", "app", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_call_that_runs_data() -> None:
    found = [
        (path, name)
        for path, tree in _sources()
        for name, call in _calls(tree)
        if name in FORBIDDEN and not _is_safe_yaml(name, call)
    ]
    assert found == []


def test_our_own_yaml_loader_is_a_safe_one() -> None:
    from medseg.models.importers.monai_config import _WithoutAliases

    assert issubclass(_WithoutAliases, yaml.SafeLoader)


def _is_safe_yaml(name: str, call: ast.Call) -> bool:
    """`yaml.load` with a loader of our own that is a SafeLoader (`_Strict(yaml.SafeLoader)` and the like)."""
    loader = [*call.args[1:], *(word.value for word in call.keywords if word.arg == "Loader")]
    return name == "yaml.load" and [ast.unparse(one) for one in loader] in SAFE_LOADERS


def test_weights_are_read_without_running_them() -> None:
    loads = [(path, call) for path, tree in _sources() for name, call in _calls(tree) if name == "torch.load"]
    for path, call in loads:
        flags = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert flags.get("weights_only") == "True", path


def test_no_shell_and_no_pickled_arrays() -> None:
    for path, tree in _sources():
        for name, call in _calls(tree):
            flags = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert flags.get("shell", "False") == "False", (path, name)
            assert flags.get("allow_pickle", "False") == "False", (path, name)


def test_readers_and_writers_stay_behind_their_doors() -> None:
    found = [
        (path, name)
        for path, tree in _sources()
        for name, _ in _calls(tree)
        if name in DOORS and not path.startswith(DOORS[name])
    ]
    assert found == []


class _Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("kind", ["pt", "pkl", "npz", "npy", "yaml"])
def test_a_file_that_wants_to_run_does_not(kind: str, tmp_path: Path) -> None:
    import pickle

    import torch

    marker, path = tmp_path / "ran", tmp_path / f"bomb.{kind}"
    bomb = _Bomb(marker)
    if kind == "pt":
        torch.save({"w": bomb}, path)
    elif kind == "pkl":
        path.write_bytes(pickle.dumps(bomb))
    elif kind == "npz":
        np.savez(path, a=np.array([bomb], dtype=object))
    elif kind == "npy":
        np.save(path, np.array([bomb], dtype=object))
    else:
        path.write_text(f"!!python/object/apply:pathlib.Path.touch [{marker}]")
    with pytest.raises(MedsegError):
        read_volume(path)
    if kind == "yaml":
        with pytest.raises(yaml.YAMLError):
            yaml.safe_load(path.read_text())
    assert not marker.exists()
