"""The lock on a file or folder: one holder at a time, also where another user made the file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from medseg.errors import OutputError
from medseg.runtime.lock import busy, locked


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


def test_who_comes_second_is_told_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    """Also while a process that the dead one forked lives on, as those that prepare batches do for a moment."""
    file = tmp_path / "run" / ".lock"
    holder = (
        "import os, sys, time; from pathlib import Path; from medseg.runtime.lock import busy\n"
        "with busy(Path(sys.argv[1])) as other:\n"
        "    print(other, flush=True)\n"
        "    os.fork(); time.sleep(10)"
    )
    with subprocess.Popen([sys.executable, "-c", holder, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "False\n"
        with busy(file) as other:
            assert other
        process.kill()
        process.wait()
        with busy(file) as other:
            assert not other
        process.stdout.close()
