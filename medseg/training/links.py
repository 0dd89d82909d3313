"""Folders with an index of ours: links to files of a data set, whose bytes are never copied or changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError, OutputError
from medseg.training.cases import SPLITS

INDEX = "index.json"
_MARKS = {"made_from", "numbered"}  # one of them is in every index that is made from other data


def require_ours(folder: Path) -> None:
    """Let only an index that was made from other data be overwritten: not one that somebody wrote.

    Raises:
        ConfigError: it is not.
    """
    index = folder / INDEX
    if index.is_file() and not _MARKS & _content(index).keys():
        raise ConfigError(
            f"{index} would be overwritten, and is a data set of its own.",
            advice="Write to another folder, or move that one away.",
        )


def source_of(folder: Path) -> str:
    """The data set that the folder's index was made from; empty where that is not known."""
    return str(_content(folder / INDEX).get("source", ""))


def _content(index: Path) -> dict[str, Any]:
    try:
        content = json.loads(index.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def link(place: Path, file: Path) -> None:
    """A link at `place` to the file; one from before is replaced.

    Raises:
        OutputError: the folder cannot hold links.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        os.symlink(file.resolve(), place)
    except OSError as error:
        raise OutputError(f"{place} could not be made: {error.strerror or error}.") from error


def sweep(folder: Path, kept: Iterable[tuple[str, str]]) -> None:
    """Remove the files of cases that are no longer there, or in another split now: they would be scored all the same.

    Args:
        folder: with an index of ours.
        kept: split and id of every case.

    Raises:
        OutputError: one could not be removed.
    """
    wanted = {folder / split / f"{name}_{role}.nii.gz" for split, name in kept for role in ("ct", "label")}
    found = {file for split in SPLITS for role in ("ct", "label") for file in (folder / split).glob(f"*_{role}.nii.gz")}
    for file in found - wanted:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{file} could not be removed: {error.strerror or error}.") from error
