"""The archive's memory: LanceDB, embedded in a folder, or the same on object storage. lancedb is known here alone.

Up to `EXACT_UP_TO` vectors search is exact, on a matrix held in memory; beyond that an index on disk answers, once
`build_index` has made one. A study's rows appear all at once or not at all: its organs are written before it, and
organs without a study are nobody's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import DataError, ModelError, NoScanError
from medseg.imaging.emit import emit
from medseg.imaging.volume import Array
from vlretrieval.store.database import connect, in_list, quiet, quoted, tables, written
from vlretrieval.store.memory import Ranking, Space
from vlretrieval.store.schema import StoreInfo, organ_rows, organ_schema, study_of, study_rows, study_schema
from vlretrieval.store.upkeep import PROBES, REFINE, has_index, index_vectors, make_indices, purge, rewrite, spans_of
from vlretrieval.study import Entry, Study, Vectors
from vlretrieval.words import analyse

EXACT_UP_TO = 200_000
STUDIES, ORGANS = "studies", "organs"


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
        database = connect(uri)
        with quiet():
            if STUDIES not in tables(database):
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
        database = connect(uri)
        with quiet():
            if STUDIES in tables(database):
                store = cls.open(uri)
                store.check(info)
                return store
            # The table of studies comes last: where it stands, the archive is whole.
            if ORGANS in tables(database):
                database.drop_table(ORGANS)
            database.create_table(ORGANS, schema=organ_schema(info))
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

    @property
    def _tables(self) -> tuple[Any, Any]:
        return self._studies, self._organs

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
        with quiet(), written(self.uri):
            self._drop_orphans()
            old = self.keys(f"id IN ({', '.join(quoted(id_) for id_ in latest)})")
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
        with quiet(), written(self.uri):
            organs = int(self._organs.count_rows(in_list("key", keys)))
            spans = [spans_of(table, keys) for table in self._tables]
            self._delete_keys(keys)
            for table, found in zip(self._tables, spans, strict=True):
                rewrite(table, found)
                purge(table, self.info)
        self._spaces.clear()
        return Removed(len(keys), organs)

    def _delete_keys(self, keys: Array) -> None:
        self._studies.delete(in_list("key", keys))
        self._organs.delete(in_list("key", keys))

    def tidy(self) -> None:
        """Join small files, index words and numbers, forget old versions. After indexing, and now and then within."""
        with quiet(), written(self.uri):
            for table in self._tables:
                make_indices(table, self.info)
                table.optimize(cleanup_older_than=timedelta(minutes=10))

    def build_index(self) -> None:
        """Index the vectors, so that archives beyond `EXACT_UP_TO` are searched in milliseconds. Takes minutes."""
        with quiet(), written(self.uri):
            for table in self._tables:
                if table.count_rows() >= 256:
                    index_vectors(table, self.info)

    # Reading

    def keys(self, where: str | None = None) -> Array:
        """Keys of the studies that pass a filter, in order."""
        with quiet():
            query = self._studies.search().select(["key"])
            query = query if where is None else query.where(where)
            found = query.limit(None).to_arrow()["key"].to_numpy()
        return np.sort(found)

    def values(self, column: str) -> list[str]:
        """One column of texts, of all studies."""
        with quiet():
            return list(self._studies.search().select([column]).limit(None).to_arrow()[column].to_pylist())

    def studies(self, keys: Sequence[int]) -> list[Study]:
        """Studies by their keys, in that order; those that are gone are left out."""
        if not len(keys):
            return []
        columns = [
            name for name in study_schema(self.info).names if name not in ("vector", "terms", "features", "facts")
        ]
        with quiet():
            query = self._studies.search().where(in_list("key", np.array(keys))).select(columns)
            rows = {row["key"]: row for row in query.limit(None).to_arrow().to_pylist()}
        return [study_of(rows[int(key)], self.info) for key in keys if int(key) in rows]

    def vectors(self, key: int) -> Vectors:
        """The vectors of a study.

        Raises:
            DataError: there is no such study.
        """
        with quiet():
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
            exact = table.count_rows() <= EXACT_UP_TO or not has_index(table, "vector")
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
        with quiet():
            found = query.select(["key", "_distance"]).limit(k).to_arrow()
        return Ranking(found["key"].to_numpy(), 1 - found["_distance"].to_numpy())

    def _space(self, organ: str) -> Space:
        """The matrix of a space, read when it is first asked for and again when the table has changed."""
        table = self._organs if organ else self._studies
        with quiet():
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

    def by_measure(self, measure: str, k: int, where: str | None = None, *, largest: bool = True) -> Ranking:
        """Studies by a measure; those without it are left out."""
        known = f"{measure} IS NOT NULL"
        with quiet():
            query = self._studies.search().where(known if where is None else f"({known}) AND ({where})")
            rows = query.select(["key", measure]).limit(None).to_arrow()
        keys, values = rows["key"].to_numpy(), rows[measure].to_numpy().astype(np.float64)
        scores = values if largest else -values
        order = np.lexsort((keys, -scores))[:k]
        return Ranking(keys[order], scores[order])

    def by_facts(self, terms: str, k: int, where: str | None = None) -> Ranking:
        """Studies of which most of these facts (`kind=value`) were seen, rare ones counting more."""
        return self._by_terms("facts", terms.split(), k, where)

    def _by_terms(self, column: str, terms: Sequence[str], k: int, where: str | None) -> Ranking:
        if not terms or not len(self):
            return Ranking.nothing()
        with quiet():
            if not has_index(self._studies, column):
                self.tidy()
            query = self._studies.search(" ".join(terms), query_type="fts", fts_columns=column)
            query = query if where is None else query.where(where, prefilter=True)
            found = query.select(["key", "_score"]).limit(k).to_arrow()
        return Ranking(found["key"].to_numpy(), found["_score"].to_numpy().astype(np.float64))

    def features(self, keys: Sequence[int]) -> dict[int, Array]:
        """What the matching head wants to see of studies, by key; empty where the archive keeps none."""
        if not self.info.features or not len(keys):
            return {}
        with quiet():
            query = self._studies.search().where(in_list("key", np.array(keys))).select(["key", "features"])
            rows = query.limit(None).to_arrow()
        values = rows["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return dict(zip(rows["key"].to_pylist(), values.reshape(-1, self.info.features), strict=True))

    def export_parquet(self, folder: Path) -> list[Path]:
        """Write studies and organs, vectors included, as parquet: for other engines and for safe keeping.

        Raises:
            OutputError: it could not be written.
        """
        written_ = []
        for table, name in zip(self._tables, (STUDIES, ORGANS), strict=True):
            with quiet():
                rows = table.to_arrow()
            written_.append(emit(folder / f"{name}.parquet", partial(_write_parquet, rows)))
        return written_


def _write_parquet(rows: Any, path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(rows, path)
