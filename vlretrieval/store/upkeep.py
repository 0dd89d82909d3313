"""Upkeep of a table: its indices, and deletion that leaves no bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from medseg.imaging.volume import Array
from vlretrieval.store.schema import StoreInfo

_NOW = timedelta(0)
# Of the index of vectors: how many of its cells are searched, and how many candidates are compared exactly.
PROBES, REFINE = 48, 30
WORDS = ("terms", "facts")


def make_indices(table: Any, info: StoreInfo, columns: Sequence[str] | None = None) -> None:
    """Index these columns; all that searches use where None is said. What is there stays."""
    if not table.count_rows():
        return
    usual = _usual_indices(table, info)
    present = {index.columns[0] for index in table.list_indices()}
    for column in usual if columns is None else columns:
        if column in present:
            continue
        if column == "vector":
            index_vectors(table, info)
        else:
            table.create_index(column, config=usual[column])


def _usual_indices(table: Any, info: StoreInfo) -> dict[str, Any]:
    from lancedb.index import Bitmap, BTree, LabelList

    if "organ" in table.schema.names:
        return {"key": BTree(), "organ": Bitmap()}
    trees = {name: BTree() for name in ("key", "patient", "id", *info.measures)}
    lists = {name: LabelList() for name in ("regions", "organs")}
    return trees | lists | {name: _word_index() for name in WORDS}


def _word_index() -> Any:
    from lancedb.index import FTS

    # Terms come ready from `analyse`, parted by blanks: the engine changes nothing about them.
    return FTS(
        base_tokenizer="whitespace",
        lower_case=False,
        stem=False,
        remove_stop_words=False,
        ascii_folding=False,
        with_position=False,
    )


def index_vectors(table: Any, info: StoreInfo) -> None:
    """Cells of like vectors, a byte for every eight of their numbers; takes minutes for a million."""
    from lancedb.index import IvfPq

    cells = max(1, round(table.count_rows() ** 0.5))
    wanted = max(8, info.dim // 8)
    parts = max(number for number in range(1, min(wanted, info.dim) + 1) if info.dim % number == 0)
    config = IvfPq(distance_type="dot", num_partitions=cells, num_sub_vectors=parts, sample_rate=64)
    table.create_index("vector", config=config, replace=True)


def indexed_columns(table: Any) -> list[str]:
    """Columns that have an index."""
    return [index.columns[0] for index in table.list_indices()]


def has_index(table: Any, column: str) -> bool:
    """Whether a column is indexed."""
    return any(index.columns == [column] for index in table.list_indices())


def spans_of(table: Any, keys: Array) -> list[tuple[int, int]]:
    """(least, largest) key of every file of the table that holds one of the keys."""
    rows = table.search().select(["key"]).with_row_id(True).limit(None).to_arrow()
    every, fragment = rows["key"].to_numpy(), rows["_rowid"].to_numpy() >> 32
    touched = np.unique(fragment[np.isin(every, keys)])
    inside = [every[fragment == number] for number in touched]
    return [(int(part.min()), int(part.max())) for part in inside]


def rewrite(table: Any, spans: Sequence[tuple[int, int]]) -> None:
    """Write the rows anew that lie in these files: deletion alone only marks rows, the bytes would stay."""
    for low, high in spans:
        inside = f"key >= {low} AND key <= {high}"
        if table.count_rows(inside):
            table.update(where=inside, values_sql={"key": "key"})


def purge(table: Any, info: StoreInfo, columns: Sequence[str]) -> None:
    """Indices hold words and codes of what was deleted: they go, and old versions, and these columns get new ones."""
    for index in table.list_indices():
        table.drop_index(index.name)
    table.optimize(cleanup_older_than=_NOW, delete_unverified=True)
    make_indices(table, info, columns)
    table.optimize(cleanup_older_than=_NOW, delete_unverified=True)
