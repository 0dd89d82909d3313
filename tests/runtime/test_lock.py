"""The lock on a file or folder: one holder at a time, also where another user made the file."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from medseg.errors import OutputError
from medseg.runtime.lock import locked


@pytest.mark.parametrize("name", ["lock", "."])
def test_the_next_holder_waits_for_the_first(tmp_path: Path, name: str) -> None:
    held = threading.Event()

    def neighbour() -> None:
        with locked(tmp_path / name, folder=name == "."):
            held.set()

    waiting = threading.Thread(target=neighbour)
    with locked(tmp_path / name, folder=name == "."):
        waiting.start()
        assert not held.wait(0.2)
    waiting.join()
    assert held.is_set()
    assert [path.name for path in tmp_path.iterdir()] == (["lock"] if name == "lock" else [])


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
            raise ZeroDivisionError


def test_a_file_that_only_its_maker_may_write_is_locked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def open_(path: Path, flags: int, *mode: Any) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", open_)
    with locked(tmp_path / "lock"):
        pass


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"nowhere/lock could not be locked: No such file"),
        locked(tmp_path / "nowhere" / "lock"),
    ):
        pass
