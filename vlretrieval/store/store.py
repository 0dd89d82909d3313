"""The archive's memory: LanceDB, embedded in a folder, or the same on object storage; this folder alone knows lancedb.

Up to `EXACT_UP_TO` vectors search is exact, on a matrix held in memory; beyond that an index on disk answers, once
`build_index` has made one. A study's rows appear all at once or not at all: its organs are written before it, and
organs without a study are nobody's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import ModelError, NoScanError
from medseg.imaging.emit import emit
from medseg.imaging.volume import Array
from vlretrieval.store.database import connect, folder_of, in_list, in_texts, quiet, quoted, tables, written
from vlretrieval.store.ledger import EVERY, Debt, Ledger
from vlretrieval.store.reading import ORGANS, STUDIES, Reading
from vlretrieval.store.schema import StoreInfo, amended_rows, organ_rows, organ_schema, study_rows, study_schema
from vlretrieval.store.upkeep import index_vectors, indexed_columns, make_indices, purge, rewrite, spans_of
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

    def __init__(self, uri: str, database: Any, info: StoreInfo) -> None:
        super().__init__(uri, database, info)
        self._ledger = Ledger(folder_of(uri))

    @classmethod
    def open(cls, uri: str | Path) -> Store:
        """An archive that is there; where there is none, nothing is made. A writer calls `finish` next.

        Raises:
            NoScanError: nothing is there.
            DataError: something else is there.
        """
        database = connect(uri, holding=STUDIES)
        if database is None:
            raise NoScanError(Path(str(uri)), "holds no archive.", advice="Make one: vlretrieval index FOLDER.")
        with quiet():
            metadata = database.open_table(STUDIES).schema.metadata
        return cls(str(uri), database, StoreInfo.read(metadata, str(uri)))

    @classmethod
    def create(cls, uri: str | Path, info: StoreInfo) -> Store:
        """A new archive, or the one that is there if the same models made it; then what was left there is finished.

        Raises:
            ModelError: other models made it: vectors of two models cannot be compared.
            DataError: something else is there.
            OutputError: it could not be written.
        """
        if connect(uri, holding=STUDIES) is not None:
            store = cls.open(uri)
            store.check(info)
            store.finish()
            return store
        database = connect(uri)
        with quiet(), written(str(uri)):
            Ledger(folder_of(uri)).clear()  # of tables that somebody has removed
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
    def _tables(self) -> dict[str, Any]:
        return {STUDIES: self._studies, ORGANS: self._organs}

    def pseudonym(self, patient: str) -> str:
        """The name under which a patient is kept."""
        return hmac.new(self.info.salt.encode(), patient.encode(), hashlib.sha256).hexdigest()[:24]

    def add(self, entries: Sequence[Entry]) -> list[int]:
        """Add studies; one that is there already, by its id or under its path, is replaced.

        Returns:
            Their keys.

        Raises:
            DataError: a vector of another size, not finite or empty.
            OutputError: nothing could be written.
        """
        latest = list({entry.study.id: entry for entry in entries}.values())
        if not latest:
            return []
        with quiet(), written(self.uri):
            first = self._next_key()
            studies, organs = study_rows(self.info, latest, first), organ_rows(self.info, latest, first)
            self._drop_orphans()
            old = self._replaced_by(latest)
            self._owe(old)
            if organs.num_rows:
                self._organs.add(organs)
            self._studies.add(studies)
            self._delete_keys(old)
        self._spaces.clear()
        return list(range(first, first + len(latest)))

    def _next_key(self) -> int:
        # A key that is to be taken away is nobody else's meanwhile.
        return max([0, *self.keys().tolist()[-1:], *self._ledger.read().keys[-1:]]) + 1

    def _drop_orphans(self) -> None:
        """Organs whose study was not written, because the writer was killed in between."""
        newest = self.keys()
        limit = int(newest.max()) if len(newest) else 0
        if self._organs.count_rows(f"key > {limit}"):
            self._organs.delete(f"key > {limit}")

    def _replaced_by(self, entries: Sequence[Entry]) -> Array:
        ids = in_texts("id", (entry.study.id for entry in entries))
        return self.keys(f"{ids} OR {in_texts('path', (entry.study.path for entry in entries if entry.study.path))}")

    def amend(self, changes: Mapping[int, Mapping[str, str]]) -> None:
        """Change texts of studies (patient, report, name, path, fingerprint), by key; nothing is encoded anew.

        Raises:
            OutputError: nothing could be written.
        """
        keys = np.array(list(changes), np.int64)
        with quiet(), written(self.uri):
            rows = self._studies.search().where(in_list("key", keys)).limit(None).to_arrow()
            if rows.num_rows:
                self._ledger.add(Debt(spans={STUDIES: spans_of(self._studies, keys)}))
                merge = self._studies.merge_insert("key").when_matched_update_all()
                merge.execute(amended_rows(rows, changes))
        self._spaces.clear()

    def retire(self, keys: Sequence[int]) -> None:
        """Take studies out of every search; their bytes go with `finish`.

        Raises:
            OutputError: nothing could be written.
        """
        gone = np.array(keys, np.int64)
        with quiet(), written(self.uri):
            self._owe(gone)
            self._delete_keys(gone)
        self._spaces.clear()

    def delete_patient(self, pseudonym: str) -> Removed:
        """Take away all studies of a patient; afterwards no file of the store holds a byte of them."""
        return self.delete(self.keys(f"patient = {quoted(pseudonym)}"))

    def delete(self, keys: Array) -> Removed:
        """Take away studies, and rewrite every file that held them. Where that fails, the next writer finishes it."""
        if not len(keys):
            return Removed(0, 0)
        with quiet(), written(self.uri):
            organs = int(self._organs.count_rows(in_list("key", keys)))
            self._owe(keys, purge=True)
        self.finish()
        return Removed(len(keys), organs)

    def _owe(self, keys: Array, *, purge: bool = False) -> None:
        """Note what is about to be taken away: a writer that dies leaves the rest to the next."""
        if not len(keys):
            return
        spans = {name: spans_of(table, keys) for name, table in self._tables.items()}
        indices = {name: indexed_columns(table) for name, table in self._tables.items()} if purge else {}
        self._ledger.add(Debt(tuple(keys.tolist()), spans, indices, purge))

    def _delete_keys(self, keys: Array) -> None:
        if len(keys):
            self._studies.delete(in_list("key", keys))
            self._organs.delete(in_list("key", keys))

    def finish(self) -> int:
        """Take away what is owed: what this writer has replaced, and what one before was killed or failed at.

        Returns:
            Studies whose deletion had been left halfway.

        Raises:
            OutputError: it could not be written; it is owed as before.
        """
        with quiet(), written(self.uri):
            self._note_halves()
            debt = self._ledger.read()
            if debt:
                self._pay(debt)
        self._spaces.clear()
        return len(debt.keys) if debt.purge else 0

    def _note_halves(self) -> None:
        """Organs without a study: an older version was killed between the two, and noted nothing."""
        organs = self._organs.search().select(["key"]).limit(None).to_arrow()["key"].to_numpy()
        owed = np.array(self._ledger.read().keys, np.int64)
        lost = np.setdiff1d(organs, np.append(self.keys(), owed))
        if len(lost):
            self._ledger.add(Debt(tuple(lost.tolist()), EVERY, purge=True))

    def _pay(self, debt: Debt) -> None:
        self._delete_keys(np.array(debt.keys, np.int64))
        for name, table in self._tables.items():
            indices = {*indexed_columns(table), *debt.indices.get(name, ())}
            rewrite(table, debt.spans.get(name, ()))
            if debt.purge:
                purge(table, self.info, sorted(indices))
        self._ledger.clear()

    def tidy(self) -> None:
        """Join small files, index words and numbers, forget old versions. After indexing, and now and then within."""
        with quiet(), written(self.uri):
            for table in self._tables.values():
                make_indices(table, self.info)
                table.optimize(cleanup_older_than=timedelta(minutes=10))

    def build_index(self) -> None:
        """Index the vectors, so that archives beyond `EXACT_UP_TO` are searched in milliseconds. Takes minutes."""
        with quiet(), written(self.uri):
            for table in self._tables.values():
                if table.count_rows() >= 256:
                    index_vectors(table, self.info)

    def export_parquet(self, folder: Path) -> list[Path]:
        """Write studies and organs, vectors included, as parquet: for other engines and for safe keeping.

        Raises:
            OutputError: it could not be written.
        """
        written_ = []
        for name, table in self._tables.items():
            with quiet():
                rows = table.to_arrow()
            written_.append(emit(folder / f"{name}.parquet", partial(_write_parquet, rows)))
        return written_


def _write_parquet(rows: Any, path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(rows, path)
