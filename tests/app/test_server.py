"""The page's server from its start to its end."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from app import desk as house
from app.catalogue import models, own_shelf
from app.server import _life, app
from medseg.models.store import SHIPPED
from tests.app.conftest import VISITOR, run
from tests.phantoms import phantom_volume, write_nifti


def take_over(name: str) -> None:
    """What an import leaves: a package on the shelf of one's own."""
    folder = shutil.copytree(SHIPPED / "tissue-hu", own_shelf() / name)
    card = json.loads((folder / "model.json").read_text("utf-8"))
    (folder / "model.json").write_text(json.dumps(card | {"name": name}), "utf-8")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEDSEG_MODELS", "")
    house.close()
    return tmp_path / "home"


def test_a_model_that_is_taken_over_can_be_used_by_processes_that_are_warm(home: Path, tmp_path: Path) -> None:
    async def visit() -> None:
        async with _life(app):
            study = house.desk().take_path(write_nifti(tmp_path / "scan.nii.gz", phantom_volume()), VISITOR)
            assert run(house.desk(), study).state == "done"
            take_over("mine")
            assert "mine" in [model.name for model in models()]
            assert run(house.desk(), study, "mine").state == "done"

    asyncio.run(visit())
    assert own_shelf().is_relative_to(home)


def test_it_is_there_after_a_restart(home: Path) -> None:
    take_over("mine")

    async def names() -> list[str]:
        async with _life(app):
            return [model.name for model in models()]

    assert "mine" in asyncio.run(names())


def test_a_shelf_that_is_named_stays_the_one(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_MODELS", str(tmp_path / "shelf"))

    async def shelf() -> Path:
        async with _life(app):
            return own_shelf()

    assert asyncio.run(shelf()) == tmp_path / "shelf"
