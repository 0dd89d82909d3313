"""The archive's memory: LanceDB, embedded in a folder, or the same on object storage. lancedb is known here alone.

Up to `EXACT_UP_TO` vectors search is exact, on a matrix held in memory; beyond that an index on disk answers, once
`build_index` has made one. A study's rows appear all at once or not at all: its organs are written before it, and
organs without a study are nobody's.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import DataError, ModelError, NoScanError, OutputError
from medseg.imaging.volume import Array
from medseg.inference.backends.predictor import needs
from vlretrieval.store.memory import Ranking, Space
from vlretrieval.store.schema import (
    StoreInfo,
    organ_rows,
    organ_schema,
    study_of,
    study_rows,
    study_schema,
)
from vlretrieval.study import Entry, Study, Vectors
from vlretrieval.words import analyse

EXACT_UP_TO = 200_000
STUDIES, ORGANS = "studies", "organs"
_NOW = timedelta(0)
_FRESH = timedelta(seconds=1)  # how soon a reader notices what another process has added
# Of the index: how many of its cells are searched, and how many candidates are compared exactly.
PROBES, REFINE = 48, 10


@dataclass(frozen=True)
class Removed:
    """What a deletion took away."""

    studies: int
    organs: int


class Store:
    """Studies and their vectors. Made by `Store.create` or `Store.open`.

    One process writes at a time; any number read meanwhile.
    """

    def __init__(self, uri: str, database: Any, info: StoreInfo) -> None:
        self.uri, self.info, self._database = uri, info, database
        self._studies, self._organs = database.open_table(STUDIES), database.open_table(ORGANS)
        self._spaces: dict[str, Space] = {}

    @classmethod
    def open(cls, uri: str | Path) -> Store:
        """An archive that is there.

        Raises:
            NoScanError: nothing is there.
            DataError: something else is there.
        """
        database = _connect(uri)
        with _quiet():
            if STUDIES not in _tables(database):
                raise NoScanError(Path(str(uri)), "holds no archive.", advice="Make one: vlretrieval index FOLDER.")
            metadata = database.open_table(STUDIES).schema.metadata
        return cls(str(uri), database, StoreInfo.read(metadata, str(uri)))

    @classmethod
    def create(cls, uri: str | Path, info: StoreInfo) -> Store:
        """A new archive, or the one that is there if the same models made it.

        Raises:
            ModelError: other models made it: vectors of two models cannot be compared.
            DataError: something else is there.
        """
        database = _connect(uri)
        with _quiet():
            if STUDIES in _tables(database):
                store = cls.open(uri)
                store.check(info)
                return store
            # The table of studies comes last: where it stands, the archive is whole.
            database.create_table(ORGANS, schema=organ_schema(info), mode="overwrite")
            database.create_table(STUDIES, schema=study_schema(info))
        return cls(str(uri), database, info)

    def check(self, info: StoreInfo) -> None:
        """Refuse another model's vectors.

        Raises:
            ModelError: naming both.
        """
        for name in ("encoder", "segmenter", "dim", "features"):
            here, there = getattr(self.info, name), getattr(info, name)
            if here != there:
                raise ModelError(
                    f"The archive {self.uri} was made with {name} {here}; this is {there}. They cannot be mixed.",
                    advice="Use that model, or index anew into another folder.",
                )

    def __len__(self) -> int:
        return int(self._studies.count_rows())

    def pseudonym(self, patient: str) -> str:
        """The name under which a patient is kept."""
        return hmac.new(self.info.salt.encode(), patient.encode(), hashlib.sha256).hexdigest()[:24]

    # Writing

    def add(self, entries: Sequence[Entry]) -> None:
        """Add studies; one that is there already (by its id) is replaced.

        Raises:
            DataError: a vector of another size, not finite or empty.
            OutputError: nothing could be written.
        """
        if not entries:
            return
        latest = {entry.study.id: entry for entry in entries}
        first = self._next_key()
        studies = study_rows(self.info, list(latest.values()), first)
        organs = organ_rows(self.info, list(latest.values()), first)
        with _quiet(), _written(self.uri):
            self._drop_orphans()
            old = self.keys(" OR ".join(f"id = {quoted(id_)}" for id_ in latest))
            if organs.num_rows:
                self._organs.add(organs)
            self._studies.add(studies)
            if len(old):
                self._delete_keys(old)
        self._spaces.clear()

    def _next_key(self) -> int:
        keys = self.keys()
        return int(keys.max()) + 1 if len(keys) else 1

    def _drop_orphans(self) -> None:
        """Organs whose study was not written, because the writer was killed in between."""
        newest = self.keys()
        limit = int(newest.max()) if len(newest) else 0
        if self._organs.count_rows(f"key > {limit}"):
            self._organs.delete(f"key > {limit}")

    def delete_patient(self, pseudonym: str) -> Removed:
        """Take away all studies of a patient; afterwards no file of the store holds a byte of them."""
        return self.delete(self.keys(f"patient = {quoted(pseudonym)}"))

    def delete(self, keys: Array) -> Removed:
        """Take away studies, and rewrite every file that held them."""
        if not len(keys):
            return Removed(0, 0)
        with _quiet(), _written(self.uri):
            organs = int(self._organs.count_rows(in_list("key", keys)))
            spans = [_spans(table, keys) for table in (self._studies, self._organs)]
            self._delete_keys(keys)
            for table, found in zip((self._studies, self._organs), spans, strict=True):
                _rewrite(table, found)
            self._purge()
        self._spaces.clear()
        return Removed(len(keys), organs)

    def _delete_keys(self, keys: Array) -> None:
        self._studies.delete(in_list("key", keys))
        self._organs.delete(in_list("key", keys))

    def _purge(self) -> None:
        """Indices hold words and codes of what was deleted: they are made anew, and old versions go."""
        for table in (self._studies, self._organs):
            made = [index.columns[0] for index in table.list_indices()]
            for index in table.list_indices():
                table.drop_index(index.name)
            table.optimize(cleanup_older_than=_NOW, delete_unverified=True)
            self._make_indices(table, made)
            table.optimize(cleanup_older_than=_NOW, delete_unverified=True)

    def tidy(self) -> None:
        """Join small files, index words and numbers, forget old versions. After indexing, and now and then within."""
        with _quiet(), _written(self.uri):
            for table in (self._studies, self._organs):
                self._make_indices(table, [index.columns[0] for index in table.list_indices()] or None)
                table.optimize(cleanup_older_than=timedelta(minutes=10))

    def _make_indices(self, table: Any, columns: Sequence[str] | None) -> None:
        """Indices of the columns; the usual ones where None is said, those that are there stay."""
        from lancedb.index import FTS, Bitmap, BTree, LabelList

        if not table.count_rows():
            return
        usual: dict[str, Any] = {"key": BTree()}
        if table is self._studies:
            usual |= {
                "terms": _word_index(FTS),
                "facts": _word_index(FTS),
                "patient": BTree(),
                "id": BTree(),
                "regions": LabelList(),
            }
            usual |= {"organs": LabelList()} | {name: BTree() for name in self.info.measures}
        else:
            usual |= {"organ": Bitmap()}
        present = {index.columns[0] for index in table.list_indices()}
        for column in columns if columns is not None else usual:
            if column not in present:
                if column == "vector":
                    self._index_vectors(table)
                else:
                    table.create_index(column, config=usual[column])

    def build_index(self) -> None:
        """Index the vectors, so that archives beyond `EXACT_UP_TO` are searched in milliseconds. Takes minutes."""
        with _quiet(), _written(self.uri):
            for table in (self._studies, self._organs):
                if table.count_rows() >= 256:
                    self._index_vectors(table)

    def _index_vectors(self, table: Any) -> None:
        from lancedb.index import IvfPq

        cells = max(1, round(table.count_rows() ** 0.5))
        config = IvfPq(
            distance_type="dot", num_partitions=cells, num_sub_vectors=max(1, self.info.dim // 8), sample_rate=64
        )
        table.create_index("vector", config=config, replace=True)

    # Reading

    def keys(self, where: str | None = None) -> Array:
        """Keys of the studies that pass a filter, in order."""
        with _quiet():
            query = self._studies.search().select(["key"])
            query = query if where is None else query.where(where)
            found = query.limit(None).to_arrow()["key"].to_numpy()
        return np.sort(found)

    def ids(self) -> set[str]:
        """Ids of all studies."""
        with _quiet():
            return set(self._studies.search().select(["id"]).limit(None).to_arrow()["id"].to_pylist())

    def studies(self, keys: Sequence[int]) -> list[Study]:
        """Studies by their keys, in that order; those that are gone are left out."""
        if not len(keys):
            return []
        columns = [
            name for name in study_schema(self.info).names if name not in ("vector", "terms", "features", "facts")
        ]
        with _quiet():
            query = self._studies.search().where(in_list("key", np.array(keys))).select(columns)
            rows = {row["key"]: row for row in query.limit(None).to_arrow().to_pylist()}
        return [study_of(rows[int(key)], self.info) for key in keys if int(key) in rows]

    def vectors(self, key: int) -> Vectors:
        """The vectors of a study.

        Raises:
            DataError: there is no such study.
        """
        with _quiet():
            whole = self._studies.search().where(f"key = {key}").select(["vector"]).limit(1).to_arrow()
            organs = self._organs.search().where(f"key = {key}").select(["organ", "vector"]).limit(None).to_arrow()
        if not whole.num_rows:
            raise DataError(f"There is no study {key} in the archive.")
        vectors = [np.array(vector, np.float32) for vector in organs["vector"].to_pylist()]
        named = dict(zip(organs["organ"].to_pylist(), vectors, strict=True))
        return Vectors(np.array(whole["vector"][0].as_py(), np.float32), named)

    def nearest(
        self, vector: Array, k: int, where: str | None = None, *, organ: str = "", exact: bool | None = None
    ) -> Ranking:
        """The k studies whose vectors are most alike.

        Args:
            vector: [D].
            k: how many.
            where: filter over studies.
            organ: compare this organ's vectors; the studies' own if empty.
            exact: None decides by size.
        """
        table = self._organs if organ else self._studies
        if exact is None:
            exact = table.count_rows() <= EXACT_UP_TO or not _has_vector_index(table)
        allowed = self.keys(where) if where is not None else None
        if exact:
            return self._space(organ).nearest(vector, k, allowed)
        return self._by_index(table, vector, k, where, organ, allowed)

    def _by_index(
        self, table: Any, vector: Array, k: int, where: str | None, organ: str, allowed: Array | None
    ) -> Ranking:
        query = table.search(np.asarray(vector, np.float32)).distance_type("dot").nprobes(PROBES).refine_factor(REFINE)
        clauses = [f"organ = {quoted(organ)}"] if organ else []
        if allowed is not None:
            clauses.append(str(where) if not organ else in_list("key", allowed))
        if clauses:
            query = query.where(" AND ".join(f"({clause})" for clause in clauses), prefilter=True)
        with _quiet():
            found = query.select(["key", "_distance"]).limit(k).to_arrow()
        return Ranking(found["key"].to_numpy(), 1 - found["_distance"].to_numpy())

    def _space(self, organ: str) -> Space:
        """The matrix of a space, read when it is first asked for and again when the table has changed."""
        table = self._organs if organ else self._studies
        with _quiet():
            version = int(table.version)
            space = self._spaces.get(organ)
            if space is None or space.version != version:
                query = table.search().select(["key", "vector"])
                query = query.where(f"organ = {quoted(organ)}") if organ else query
                space = Space.read(query.limit(None).to_arrow(), self.info.dim, version)
                self._spaces[organ] = space
        return space

    def by_words(self, text: str, k: int, where: str | None = None) -> Ranking:
        """Studies whose words match, by BM25; denied words match denied words."""
        return self._by_terms("terms", analyse(text), k, where)

    def by_facts(self, terms: str, k: int, where: str | None = None) -> Ranking:
        """Studies of which most of these facts (`kind=value`) were seen, rare ones counting more."""
        return self._by_terms("facts", terms.split(), k, where)

    def _by_terms(self, column: str, terms: Sequence[str], k: int, where: str | None) -> Ranking:
        if not terms or not len(self):
            return Ranking.nothing()
        with _quiet():
            if not any(index.columns == [column] for index in self._studies.list_indices()):
                self.tidy()
            query = self._studies.search(" ".join(terms), query_type="fts", fts_columns=column)
            query = query if where is None else query.where(where, prefilter=True)
            found = query.select(["key", "_score"]).limit(k).to_arrow()
        return Ranking(found["key"].to_numpy(), found["_score"].to_numpy().astype(np.float64))

    def features(self, keys: Sequence[int]) -> dict[int, Array]:
        """What the matching head wants to see of studies, by key; empty where the archive keeps none."""
        if not self.info.features or not len(keys):
            return {}
        with _quiet():
            query = self._studies.search().where(in_list("key", np.array(keys))).select(["key", "features"])
            rows = query.limit(None).to_arrow()
        values = rows["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return dict(zip(rows["key"].to_pylist(), values.reshape(-1, self.info.features), strict=True))

    def export_parquet(self, folder: Path) -> list[Path]:
        """Write studies and organs, vectors included, as parquet: for other engines and for safe keeping.

        Raises:
            OutputError: it could not be written.
        """
        import pyarrow.parquet as pq

        from medseg.imaging.emit import emit

        written = []
        for table, name in ((self._studies, STUDIES), (self._organs, ORGANS)):
            with _quiet():
                content = table.to_arrow()
            written.append(emit(folder / f"{name}.parquet", lambda path, rows=content: pq.write_table(rows, path)))
        return written


def _connect(uri: str | Path) -> Any:
    os.environ.setdefault("LANCE_LOG", "error")  # its log speaks of its own coming changes, line after line
    with needs("lancedb", "retrieval"):
        import lancedb
    if "://" not in str(uri):
        path = Path(uri).expanduser()
        if path.exists() and not path.is_dir():
            raise DataError(f"{path} is a file, not the folder of an archive.")
        uri = str(path)
    with _quiet():
        return lancedb.connect(str(uri), read_consistency_interval=_FRESH)


def _tables(database: Any) -> list[str]:
    return list(database.table_names(limit=100))


def _word_index(fts: Any) -> Any:
    # Terms come ready from `analyse`, parted by blanks: the engine changes nothing about them.
    return fts(
        base_tokenizer="whitespace",
        lower_case=False,
        stem=False,
        remove_stop_words=False,
        ascii_folding=False,
        with_position=False,
    )


def _has_vector_index(table: Any) -> bool:
    return any(index.columns == ["vector"] for index in table.list_indices())


def _spans(table: Any, keys: Array) -> list[tuple[int, int]]:
    """(least, largest) key of every file of the table that holds one of the keys."""
    rows = table.search().select(["key"]).with_row_id(True).limit(None).to_arrow()
    every, fragment = rows["key"].to_numpy(), rows["_rowid"].to_numpy() >> 32
    touched = np.unique(fragment[np.isin(every, keys)])
    inside = [every[fragment == number] for number in touched]
    return [(int(part.min()), int(part.max())) for part in inside]


def _rewrite(table: Any, spans: Sequence[tuple[int, int]]) -> None:
    """Write the rows anew that lie in these files: deletion alone only marks rows, the bytes would stay."""
    for low, high in spans:
        inside = f"key >= {low} AND key <= {high}"
        if table.count_rows(inside):
            table.update(where=inside, values_sql={"key": "key"})


def quoted(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def in_list(column: str, values: Array) -> str:
    """`column IN (...)`; false for an empty list."""
    return f"{column} IN ({', '.join(str(int(value)) for value in values)})" if len(values) else "false"


@contextmanager
def _quiet() -> Iterator[None]:
    """The library warns of its own coming changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _written(uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutputError(f"The archive {uri} could not be written: {first}.") from error
