"""What an archive holds, by place and by content: whether a study has to be looked at is decided here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.jobs.manifest import fingerprint
from vlretrieval.store.store import Store


@dataclass(frozen=True)
class Held:
    """A study of the archive; see `Study`."""

    key: int
    id: str
    path: str
    fingerprint: str

    def is_there(self) -> bool:
        """Whether its files still lie where they were, unchanged."""
        return fingerprint(Path(self.path)) == self.fingerprint


class Catalogue:
    """The studies of an archive that is being written.

    An archive of an older version may hold two scans under one path: the one that is no longer there is retired.
    """

    def __init__(self, store: Store) -> None:
        rows = sorted((Held(*row) for row in store.rows("key", "id", "path", "fingerprint")), key=lambda row: row.key)
        self._places = {row.path: row for row in rows}
        store.retire([row.key for row in rows if self._places[row.path] is not row])
        self._contents = {row.id: row for row in self._places.values()}

    def at(self, place: str) -> Held | None:
        """The study that was found under a path."""
        return self._places.get(place)

    def of(self, content: str) -> Held | None:
        """The study of this id."""
        return self._contents.get(content)

    def put(self, row: Held) -> None:
        """Add a study; what was under its path, or of its content, is gone."""
        self.drop(self.at(row.path))
        self.drop(self.of(row.id))
        self._places[row.path] = self._contents[row.id] = row

    def drop(self, row: Held | None) -> None:
        """Forget a study."""
        if row is not None:
            self._places.pop(row.path, None)
            self._contents.pop(row.id, None)
