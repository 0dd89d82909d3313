"""Which value is which organ, and which organs were contoured: label tables and dataset indices."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import DataError

TABLE_NAMES = ("labels.json", "dataset.json")


@dataclass(frozen=True)
class ReferenceIndex:
    """What an index says of the references.

    Attributes:
        path: the file.
        labels: organ -> value; empty where the index has none.
        contoured: case -> organs that were contoured, None for all; None where the index lists no cases.
        patients: case -> patient; a case that it lacks is a patient of its own.
    """

    path: Path
    labels: dict[str, int]
    contoured: dict[str, frozenset[str] | None] | None
    patients: dict[str, str] = field(default_factory=dict)

    def known(self, case: str) -> frozenset[str] | None:
        """Organs contoured in a case; None means all.

        Raises:
            DataError: the index lists cases, but not this one.
        """
        if self.contoured is None:
            return None
        if case not in self.contoured:
            raise DataError(
                f"Case {case} is not listed in {self.path}: which organs were contoured is unknown.",
                advice="Add it to the index, or give the index that belongs to these references.",
            )
        return self.contoured[case]

    def check(self, table: Collection[str]) -> None:
        """Refuse contoured organs that a label table lacks: they would drop out of the score unseen.

        Raises:
            DataError: names the case and the organs.
        """
        for case, organs in (self.contoured or {}).items():
            if unknown := sorted((organs or frozenset()) - set(table)):
                raise DataError(
                    f"Case {case} in {self.path}: contoured organs are not in the label table: {', '.join(unknown)}.",
                    advice=f"Correct the names; it has {', '.join(table)}. To score some of them, give `organs`.",
                )


def find_index(references: Path) -> Path | None:
    """`index.json` in the folder of the references, or one level up."""
    folder = references if references.is_dir() else references.parent
    places = (folder / "index.json", folder.resolve().parent / "index.json")
    return next((place for place in places if place.is_file()), None)


def read_reference_index(path: Path) -> ReferenceIndex:
    """Read {"labels": {organ: value}, "cases": [{"id", "contoured": [organ, ...], "patient"}]}.

    Raises:
        DataError: it is not such a file, or an organ is contoured that its labels lack.
    """
    content = _read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a dataset index: an object with `labels` and `cases` is needed.")
    labels = parse_labels(content["labels"], path) if "labels" in content else {}
    cases = content.get("cases")
    if cases is None:
        return ReferenceIndex(path, labels, None)
    index = ReferenceIndex(path, labels, _contoured(cases, path), _patients(cases))
    if labels:
        index.check(labels)
    return index


def _contoured(cases: Any, path: Path) -> dict[str, frozenset[str] | None]:
    try:
        # A case without the word says nothing of what was left out: all organs of the table were looked for.
        return {str(case["id"]): frozenset(case["contoured"]) if "contoured" in case else None for case in cases}
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: every case needs an `id`; `contoured` is a list of organs.") from error


def _patients(cases: Any) -> dict[str, str]:
    return {str(case["id"]): str(case["patient"]) for case in cases if case.get("patient")}


def table_beside(mask: Path) -> dict[str, int] | None:
    """The label table next to a mask, or one level up for flat folders; None where there is none."""
    folders = [mask.parent] if mask.name.startswith("mask.nii") else [mask.parent, mask.resolve().parent.parent]
    places = [folder / name for folder in folders for name in TABLE_NAMES]
    return next((read_labels(place) for place in places if place.is_file()), None)


def read_labels(path: Path) -> dict[str, int]:
    """Read a label table: organ -> value, without the background.

    The table is the whole file or its `labels`: a list of {"name", "value"}, {organ: value} or {value: organ}.

    Raises:
        DataError: missing, not JSON, or not a label table.
    """
    content = _read_json(path)
    return parse_labels(content["labels"] if isinstance(content, dict) and "labels" in content else content, path)


def parse_labels(content: Any, path: Path) -> dict[str, int]:
    """Turn any of the accepted forms into organ -> value."""
    try:
        pairs = [_pair(name, value) for name, value in _entries(content)]
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{path} holds no label table.", advice='Give {"organ": value, ...} as JSON.') from error
    table = {name: value for name, value in pairs if value != 0}
    values = [value for _, value in pairs if value != 0]
    if not table or len(table) != len(values) or len(set(values)) != len(values):
        raise DataError(f"{path}: the label table is empty, or gives a name or value twice.")
    return table


def _entries(content: Any) -> list[tuple[Any, Any]]:
    if isinstance(content, Mapping):
        return list(content.items())
    return [(entry["name"], entry["value"]) for entry in content]


def _pair(name: Any, value: Any) -> tuple[str, int]:
    if isinstance(value, str) and str(name).isdigit():
        name, value = value, name
    return str(name), int(value)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.") from error
