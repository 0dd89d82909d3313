"""Private folders: who may read them, and when they go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.folders import WorkFolders


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_folders_are_for_this_user_alone(tmp_path: Path) -> None:
    folders = WorkFolders(tmp_path)
    study = folders.path(folders.new())
    assert study is not None
    assert "_" not in study.name  # two in a row are forbidden in the key of a component
    assert [mode(path) for path in (study, study.parent, study.parent.parent)] == [0o700] * 3
    folders.close()
    assert not study.exists()


@pytest.mark.parametrize("name", ["", "..", "../x", "lock", "a" * 32, "/etc", "a/b", "x" * 500])
def test_an_id_that_is_not_a_study_leads_nowhere(tmp_path: Path, name: str) -> None:
    folders = WorkFolders(tmp_path)
    assert folders.path(name) is None
    folders.remove(name)
    assert folders.root.is_dir()
    folders.close()


def test_ids_do_not_repeat(tmp_path: Path) -> None:
    folders = WorkFolders(tmp_path)
    assert len({folders.new() for _ in range(50)}) == 50
    folders.close()


def test_what_nobody_looked_at_expires_and_what_was_touched_does_not(tmp_path: Path) -> None:
    folders = WorkFolders(tmp_path)
    old, used = folders.new(), folders.new()
    for study in (old, used):
        os.utime(folders.root / study, (0, time.time() - 9 * 3600))
    folders.touch(used)
    assert folders.expired(hours=8) == [old]
    folders.close()


def test_start_sweeps_what_a_dead_server_left_and_spares_a_living_one(tmp_path: Path) -> None:
    living, dead = WorkFolders(tmp_path), WorkFolders(tmp_path)
    kept, left = living.new(), dead.root / dead.new()
    os.close(dead._lock)  # what the end of a process does
    WorkFolders(tmp_path).close()
    assert living.path(kept) is not None
    assert not left.exists()
    living.close()


def test_a_folder_planted_under_our_name_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"medseg-page-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises((PermissionError, FileExistsError)):
        WorkFolders(tmp_path)
