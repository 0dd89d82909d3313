"""Paths as visitors type them: written out, or refused in words; never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.paths import path_of, there
from app.studies import Refused

TOO_LONG = "/" + "n" * 300 + "/scan.nii.gz"
NOBODYS = "~nobody-has-this-name/scan.nii.gz"


def test_a_tilde_is_written_out_and_what_is_not_there_yet_is_a_path_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/new/folder") == tmp_path / "new" / "folder"
    assert there("~") == tmp_path


@pytest.mark.parametrize("text", [TOO_LONG, NOBODYS, "a\0b"])
def test_what_cannot_be_a_path_is_refused(text: str) -> None:
    for ask in (path_of, there):
        with pytest.raises(Refused) as refused:
            ask(text)
        assert text in refused.value.problem.message
        assert refused.value.problem.advice


def test_a_ring_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    with pytest.raises(Refused):
        there(tmp_path / "ring")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_where_this_computer_may_not_look_is_refused(tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0)
    with pytest.raises(Refused):
        path_of(shut / "scan.nii.gz")
    shut.chmod(0o700)


def test_where_nothing_lies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        there(tmp_path / "nothing")
