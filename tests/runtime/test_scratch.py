"""Scratch folders: a neighbour who starts while one is being made takes it for nobody's at no moment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from medseg.runtime import scratch
from medseg.runtime.scratch import LOCK, Scratch


def test_a_folder_is_not_swept_between_its_making_and_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours: list[Scratch] = []
    starting = threading.Thread(target=lambda: neighbours.append(Scratch("test", tmp_path)))
    hold = scratch._hold

    def hold_late(folder: Path) -> int:
        """The lock's file is there and not yet locked when the neighbour looks."""
        monkeypatch.setattr(scratch, "_hold", hold)
        (folder / LOCK).touch()
        starting.start()
        starting.join(0.5)
        return hold(folder)

    monkeypatch.setattr(scratch, "_hold", hold_late)
    owner = Scratch("test", tmp_path)
    starting.join()
    assert all(folder.path.is_dir() and (folder.root / LOCK).is_file() for folder in (owner, *neighbours))
    for folder in (owner, *neighbours):
        folder.close()
    assert list(owner.root.parent.iterdir()) == []


def test_files_have_no_place_when_the_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "make_held", lambda purpose, parent: (tmp_path / "gone", -1))
    with pytest.raises(FileNotFoundError):
        Scratch("test", tmp_path)
    assert not (tmp_path / "gone").exists()
