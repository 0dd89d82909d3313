"""The archive's memory: LanceDB, embedded in a folder, or the same on object storage; this folder alone knows lancedb.

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

from medseg.errors import ModelError, NoScanError
from medseg.imaging.emit import emit
from medseg.imaging.volume import Array
from vlretrieval.store.database import connect, in_list, quiet, quoted, tables, written
from vlretrieval.store.reading import ORGANS, STUDIES, Reading
from vlretrieval.store.schema import StoreInfo, organ_rows, organ_schema, study_rows, study_schema
from vlretrieval.store.upkeep import index_vectors, make_indices, purge, rewrite, spans_of
from vlretrieval.study import Entry


@dataclass(frozen=True)
class Removed:
    """What a deletion took away."""

    studies: int
    organs: int


class Store(Reading):
    """Studies and their vectors. Made by `Store.create` or `Store.open`.

    One process writes at a time; any number read meanwhile.
    """

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

    def pseudonym(self, patient: str) -> str:
        """The name under which a patient is kept."""
        return hmac.new(self.info.salt.encode(), patient.encode(), hashlib.sha256).hexdigest()[:24]

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
