"""What is to be taken away from an archive yet: noted before the first row goes, struck out after the last byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from medseg.imaging.emit import emit_json, sweep_parts
from vlretrieval.store.reading import ORGANS, STUDIES

LEDGER = "unfinished.json"
Span = tuple[int, int]
Named = TypeVar("Named")
EVERY: Mapping[str, Sequence[Span]] = {STUDIES: ((0, 2**62),), ORGANS: ((0, 2**62),)}


@dataclass(frozen=True)
class Debt:
    """What is owed. Numbers of studies, nothing else of a patient.

    Attributes:
        keys: of the studies that are to go.
        spans: (least, largest) key of the files that hold bytes of them, by table.
        indices: columns that are indexed again at the end, by table.
        purge: a patient was deleted: indices and old versions go as well. Without, rows were replaced.
    """

    keys: tuple[int, ...] = ()
    spans: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    indices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    purge: bool = False

    def __bool__(self) -> bool:
        return bool(self.keys or self.spans)

    def plus(self, other: Debt) -> Debt:
        """Both."""
        return Debt(
            tuple(sorted({*self.keys, *other.keys})),
            {name: joined(spans) for name, spans in _both(self.spans, other.spans).items()},
            {name: sorted(set(columns)) for name, columns in _both(self.indices, other.indices).items()},
            self.purge or other.purge,
        )


def _both(first: Mapping[str, Sequence[Named]], second: Mapping[str, Sequence[Named]]) -> dict[str, list[Named]]:
    return {name: [*first.get(name, ()), *second.get(name, ())] for name in {**first, **second}}


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans that overlap become one: what lies in both is written anew once."""
    found: list[Span] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


class Ledger:
    """The debts of an archive: a file in its folder. On object storage (None) this process alone remembers them."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / LEDGER
        self._remembered = Debt()

    def read(self) -> Debt:
        """What is owed; all there is, where nobody can read any more what it was."""
        if self._path is None:
            return self._remembered
        if not self._path.exists():
            return Debt()
        try:
            return _debt(json.loads(self._path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            return Debt(spans=EVERY, purge=True)

    def add(self, debt: Debt) -> None:
        """Note what is about to be taken away.

        Raises:
            OutputError: it could not be written.
        """
        owed = self.read().plus(debt)
        if self._path is None:
            self._remembered = owed
        else:
            emit_json(self._path, asdict(owed))

    def clear(self) -> None:
        """All is done."""
        self._remembered = Debt()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            sweep_parts(self._path)


def _debt(values: Mapping[str, Any]) -> Debt:
    spans = {name: [(int(low), int(high)) for low, high in found] for name, found in dict(values["spans"]).items()}
    return Debt(tuple(map(int, values["keys"])), spans, dict(values["indices"]), bool(values["purge"]))
