"""LanceDB's own ways: how it is opened, kept quiet and asked. lancedb is known in this folder alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from medseg.errors import DataError, OutputError
from medseg.imaging.volume import Array
from medseg.inference.backends.predictor import needs

_FRESH = timedelta(seconds=1)  # how soon a reader notices what another process has added


def connect(uri: str | Path) -> Any:
    """The database in a folder, or on object storage (`s3://bucket/folder`).

    Raises:
        DataError: a file is in the way.
    """
    os.environ.setdefault("LANCE_LOG", "error")  # its log speaks of its own coming changes, line after line
    with needs("lancedb", "retrieval"):
        import lancedb
    if "://" not in str(uri):
        path = Path(uri).expanduser()
        if path.exists() and not path.is_dir():
            raise DataError(f"{path} is a file, not the folder of an archive.")
        uri = str(path)
    with quiet():
        return lancedb.connect(str(uri), read_consistency_interval=_FRESH)


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


def in_list(column: str, values: Array) -> str:
    """`column IN (...)`; false for an empty list."""
    return f"{column} IN ({', '.join(str(int(value)) for value in values)})" if len(values) else "false"
