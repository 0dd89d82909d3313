"""The columns of a store. Arrow's types are known here and in the store alone."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from medseg.errors import DataError
from medseg.inference.backends.predictor import needs
from vlretrieval.study import Entry, Study
from vlretrieval.words import analyse

with needs("pyarrow", "retrieval"):
    import pyarrow as pa

FORMAT = 1
_STAMP = b"vlretrieval"
SCAN_MEASURES = ("length_mm", "slice_mm", "field_mm")


@dataclass(frozen=True)
class StoreInfo:
    """Who made the vectors; stamped into every table, and compared before one is added or asked for.

    Attributes:
        encoder: name@version and SHA-256 of the retrieval model.
        segmenter: the same of the model that found the organs.
        dim: of the vectors.
        features: numbers that the matching head wants of a study; 0 keeps none.
        organs: that can be measured.
        salt: mixed into patients' pseudonyms, so that nobody without the store can make them.
    """

    encoder: str
    segmenter: str
    dim: int
    features: int = 0
    organs: tuple[str, ...] = ()
    salt: str = field(default_factory=lambda: secrets.token_hex(16), compare=False)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of all measures that can be filtered by."""
        return (*SCAN_MEASURES, *(f"{organ}_{unit}" for organ in self.organs for unit in ("ml", "hu")))

    def stamp(self) -> dict[bytes, bytes]:
        return {_STAMP: json.dumps(asdict(self) | {"format": FORMAT}).encode()}

    @classmethod
    def read(cls, metadata: Mapping[bytes, bytes] | None, where: str) -> StoreInfo:
        """The stamp of a table.

        Raises:
            DataError: it has none, or one of another time.
        """
        try:
            values = json.loads((metadata or {})[_STAMP])
            if values.pop("format") != FORMAT:
                raise KeyError("format")
            return cls(**values | {"organs": tuple(values["organs"])})
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise DataError(f"{where} is no archive of this program.", advice="Index into a new folder.") from error


def study_schema(info: StoreInfo) -> pa.Schema:
    """Columns of the table of studies."""
    texts = ("id", "patient", "name", "path", "fingerprint", "text", "report", "terms", "facts")
    columns = [("key", pa.int64())] + [(name, pa.string()) for name in texts]
    columns += [("regions", pa.list_(pa.string())), ("organs", pa.list_(pa.string())), ("thumbnail", pa.binary())]
    columns += [(name, pa.float32()) for name in info.measures]
    columns += [("vector", pa.list_(pa.float32(), info.dim))]
    columns += [("features", pa.list_(pa.float32(), info.features))] if info.features else []
    return pa.schema(columns, metadata=info.stamp())


def organ_schema(info: StoreInfo) -> pa.Schema:
    """Columns of the table of organs' vectors."""
    columns = [("key", pa.int64()), ("organ", pa.string()), ("vector", pa.list_(pa.float32(), info.dim))]
    return pa.schema(columns, metadata=info.stamp())


def study_rows(info: StoreInfo, entries: Sequence[Entry], first: int) -> pa.Table:
    """Studies with their vectors as rows, numbered from `first`."""
    rows = [_study_row(info, entry, first + place) for place, entry in enumerate(entries)]
    return pa.Table.from_pylist(rows, schema=study_schema(info))


def _study_row(info: StoreInfo, entry: Entry, key: int) -> dict[str, Any]:
    study = entry.study
    row: dict[str, Any] = {name: study.measures.get(name) for name in info.measures}
    plain = ("id", "patient", "name", "path", "fingerprint", "text", "report", "thumbnail")
    row |= {name: getattr(study, name) for name in plain}
    row |= {"key": key, "facts": entry.facts, "regions": list(study.regions), "organs": list(study.organs)}
    row["terms"] = " ".join(analyse(f"{study.text}\n{study.report}\n{entry.words}"))
    row["vector"] = unit(entry.vectors.whole, info.dim, study.name)
    if info.features:
        row["features"] = _features(entry, info.features)
    return row


def amended_rows(rows: pa.Table, changes: Mapping[int, Mapping[str, str]]) -> pa.Table:
    """Rows of studies with other texts, by key; another report has other words that find it."""
    return pa.Table.from_pylist([_amended(row, changes[row["key"]]) for row in rows.to_pylist()], schema=rows.schema)


def _amended(row: dict[str, Any], change: Mapping[str, str]) -> dict[str, Any]:
    if "report" not in change:
        return row | dict(change)
    kept = Counter(row["terms"].split()) - Counter(analyse(row["report"]))
    return row | dict(change) | {"terms": " ".join([*kept.elements(), *analyse(change["report"])])}


def _features(entry: Entry, size: int) -> Any:
    features = entry.vectors.features
    if features is None or len(features) != size:
        raise DataError(f"{entry.study.name}: {size} features are wanted for the matching head.")
    return np.asarray(features, np.float32)


def organ_rows(info: StoreInfo, entries: Sequence[Entry], first: int) -> pa.Table:
    """One row for every organ of every study."""
    rows = [
        {"key": first + place, "organ": organ, "vector": unit(vector, info.dim, entry.study.name)}
        for place, entry in enumerate(entries)
        for organ, vector in entry.vectors.organs.items()
    ]
    return pa.Table.from_pylist(rows, schema=organ_schema(info))


def unit(vector: Any, dim: int, name: str) -> Any:
    """A vector of length 1.

    Raises:
        DataError: of another size, not finite, or nothing.
    """
    array = np.asarray(vector, dtype=np.float32).reshape(-1)
    length = float(np.linalg.norm(array))
    if len(array) != dim or not np.isfinite(length) or length == 0:
        raise DataError(
            f"{name}: a vector of {len(array)} numbers and length {length:g}; {dim} of length 1 are wanted."
        )
    return array / length


def study_of(row: Mapping[str, Any], info: StoreInfo) -> Study:
    """The inverse of a row."""
    return Study(
        id=row["id"],
        patient=row["patient"],
        name=row["name"],
        path=row["path"],
        fingerprint=row["fingerprint"],
        regions=tuple(row["regions"] or ()),
        organs=tuple(row["organs"] or ()),
        measures={name: round(row[name], 3) for name in info.measures if row[name] is not None},
        text=row["text"],
        report=row["report"],
        thumbnail=row["thumbnail"] or b"",
        key=row["key"],
    )
