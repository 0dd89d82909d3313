"""Exact search on a matrix in memory, and what a search gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.imaging.volume import Array

_GATHER_BELOW = 0.2  # of all rows: fewer are copied together, more are computed where they lie


@dataclass(frozen=True)
class Ranking:
    """Keys of studies, best first, and their scores."""

    keys: Array
    scores: Array

    @classmethod
    def nothing(cls) -> Ranking:
        return cls(np.zeros(0, np.int64), np.zeros(0))

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Space:
    """Vectors [N, D] of unit length, ordered by key; `version` of the table that they were read from."""

    keys: Array
    matrix: Array
    version: int

    @classmethod
    def read(cls, rows: Any, dim: int, version: int) -> Space:
        """From an Arrow table of `key` and `vector`."""
        keys = rows["key"].to_numpy()
        flat = rows["vector"].combine_chunks()
        matrix = np.asarray(flat.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(keys), dim)
        order = np.argsort(keys)
        if np.array_equal(order, np.arange(len(keys))):
            return cls(keys, matrix, version)
        return cls(keys[order], matrix[order], version)

    def nearest(self, vector: Array, k: int, allowed: Array | None = None) -> Ranking:
        """The k nearest among `allowed` (sorted keys; None: all)."""
        vector = np.asarray(vector, np.float32)
        rows = None if allowed is None else self._rows(allowed)
        if rows is None:
            return self._best(self.matrix @ vector, self.keys, k)
        if len(rows) < _GATHER_BELOW * len(self.keys):
            return self._best(self.matrix[rows] @ vector, self.keys[rows], k)
        return self._best((self.matrix @ vector)[rows], self.keys[rows], k)

    def _rows(self, allowed: Array) -> Array:
        if not len(self.keys):
            return np.zeros(0, np.int64)
        place = np.minimum(np.searchsorted(self.keys, allowed), len(self.keys) - 1)
        return place[self.keys[place] == allowed]

    @staticmethod
    def _best(scores: Array, keys: Array, k: int) -> Ranking:
        if len(scores) > k:
            best = np.argpartition(-scores, k - 1)[:k]
            scores, keys = scores[best], keys[best]
        order = np.lexsort((keys, -scores))
        return Ranking(keys[order], scores[order].astype(np.float64))
