"""Asking an archive. Nothing is written but an index of words, where one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.errors import DataError
from medseg.imaging.volume import Array
from vlretrieval.store.database import in_list, quiet, quoted
from vlretrieval.store.memory import Ranking, Space
from vlretrieval.store.schema import StoreInfo, study_of, study_schema
from vlretrieval.store.upkeep import PROBES, REFINE, has_index, make_indices
from vlretrieval.study import Study, Vectors
from vlretrieval.words import analyse

EXACT_UP_TO = 200_000
STUDIES, ORGANS = "studies", "organs"


class Reading:
    """The half of a `Store` that answers."""

    def __init__(self, uri: str, database: Any, info: StoreInfo) -> None:
        self.uri, self.info, self._database = uri, info, database
        self._studies, self._organs = database.open_table(STUDIES), database.open_table(ORGANS)
        self._spaces: dict[str, Space] = {}

    def __len__(self) -> int:
        return int(self._studies.count_rows())

    def keys(self, where: str | None = None) -> Array:
        """Keys of the studies that pass a filter, in order."""
        with quiet():
            query = self._studies.search().select(["key"])
            query = query if where is None else query.where(where)
            found = query.limit(None).to_arrow()["key"].to_numpy()
        return np.sort(found)

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """Some columns of all studies, a study a row."""
        with quiet():
            found = self._studies.search().select(list(columns)).limit(None).to_arrow()
        return list(zip(*(found[column].to_pylist() for column in columns), strict=True))

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

    def wholes(self, keys: Array) -> Array:
        """[N, D] vectors of studies, in the order of their keys; all of them have to be there."""
        if self._is_exact(self._studies):
            space = self._space("")
        else:
            with quiet():
                query = self._studies.search().where(in_list("key", keys)).select(["key", "vector"])
                space = Space.read(query.limit(None).to_arrow(), self.info.dim, 0)
        return space.matrix[np.searchsorted(space.keys, keys)]

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
            exact = self._is_exact(table)
        # The index filters studies by itself; a matrix, and the table of organs, have to be told who passes.
        allowed = self.keys(where) if where is not None and (exact or organ) else None
        if exact:
            return self._space(organ).nearest(vector, k, allowed)
        return self._by_index(table, vector, k, where, organ, allowed)

    @staticmethod
    def _is_exact(table: Any) -> bool:
        """Whether all vectors are compared: there are few, or no index was made."""
        return table.count_rows() <= EXACT_UP_TO or not has_index(table, "vector")

    def _by_index(
        self, table: Any, vector: Array, k: int, where: str | None, organ: str, allowed: Array | None
    ) -> Ranking:
        query = table.search(np.asarray(vector, np.float32)).distance_type("dot").nprobes(PROBES).refine_factor(REFINE)
        clauses = [f"organ = {quoted(organ)}"] if organ else []
        if where is not None:
            clauses.append(where if allowed is None else in_list("key", allowed))
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
                make_indices(self._studies, self.info, [column])
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
