"""The pre-commit hooks that keep scans, pickles and large files out, run by pre-commit itself in a new repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.packaging.checkout import ROOT, tool

CONFIG = ROOT / ".pre-commit-config.yaml"


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    shutil.copy(CONFIG, folder)
    return folder


def refused(repository: Path, name: str, content: bytes = b"x") -> str:
    """Stages a file and runs the hooks on it; gives what they said, or nothing where all passed."""
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    git(repository, "add", "--all")
    settings = {**os.environ, "SKIP": "ruff,ruff-format,mypy", "PRE_COMMIT_HOME": str(repository.parent / "cache")}
    command = [tool("pre-commit"), "run", "--files", name]
    done = subprocess.run(command, cwd=repository, env=settings, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode else ""


def test_all_hooks_are_local() -> None:
    assert [entry["repo"] for entry in yaml.safe_load(CONFIG.read_text())["repos"]] == ["local"]


@pytest.mark.parametrize("name", ["patient.nii.gz", "a/b.NII", "IM1.dcm", "scan.mha", "medseg/scan.nrrd"])
def test_a_scan_is_refused(repository: Path, name: str) -> None:
    assert "stay outside the repository" in refused(repository, name)


@pytest.mark.parametrize("name", ["weights.pt", "medseg/models/x.pth", "cases.pkl", "run.ckpt"])
def test_a_pickle_is_refused(repository: Path, name: str) -> None:
    assert "runs code" in refused(repository, name)


def test_a_large_file_is_refused_also_where_its_name_has_spaces(repository: Path) -> None:
    assert "my model.safetensors has 26214401 bytes" in refused(repository, "my model.safetensors", bytes(26214401))


@pytest.mark.parametrize("name", ["medseg/examples/ct.nii.gz", "weights.safetensors", "notes.md"])
def test_what_belongs_here_passes(repository: Path, name: str) -> None:
    assert refused(repository, name) == ""
