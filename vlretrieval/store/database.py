"""LanceDB's own ways: how it is opened, kept quiet and asked. lancedb is known in this folder alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from medseg.errors import DataError, OutputError
from medseg.imaging.volume import Array
from medseg.inference.backends.predictor import needs

_FRESH = timedelta(seconds=1)  # how soon a reader notices what another process has added


def folder_of(uri: str | Path) -> Path | None:
    """The folder of an archive, `~` expanded; None on object storage."""
    return None if "://" in str(uri) else Path(os.path.expanduser(uri))


def connect(uri: str | Path, *, holding: str = "") -> Any:
    """The database in a folder, or on object storage (`s3://bucket/folder`).

    Args:
        uri: its place; a folder is made where there is none.
        holding: a table that has to be there; without it the answer is None, and nothing is made.

    Raises:
        DataError: a file is in the way.
        OutputError: the folder could not be made.
    """
    os.environ.setdefault("LANCE_LOG", "error")  # its log speaks of its own coming changes, line after line
    with needs("lancedb", "retrieval"):
        import lancedb
    folder = folder_of(uri)
    if folder is not None:
        if os.path.isfile(folder):
            raise DataError(f"{folder} is a file, not the folder of an archive.")
        if holding and not os.path.isdir(folder / f"{holding}.lance"):
            return None
    with quiet(), written(str(uri)):
        database = lancedb.connect(str(folder or uri), read_consistency_interval=_FRESH)
    with quiet():
        return None if holding and holding not in tables(database) else database


def tables(database: Any) -> list[str]:
    """Names of its tables."""
    return list(database.table_names(limit=100))


@contextmanager
def quiet() -> Iterator[None]:
    """The library warns of its own coming changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def written(uri: str) -> Iterator[None]:
    """Around writing.

    Raises:
        OutputError: it failed.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutputError(f"The archive {uri} could not be written: {first}.") from error


def quoted(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def in_texts(column: str, values: Iterable[str]) -> str:
    """`column IN (...)` for texts; false where there are none."""
    return f"{column} IN ({listed})" if (listed := ", ".join(map(quoted, values))) else "false"


def in_list(column: str, values: Array) -> str:
    """`column IN (...)`; false for an empty list."""
    return f"{column} IN ({', '.join(str(int(value)) for value in values)})" if len(values) else "false"
