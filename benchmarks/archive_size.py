"""How long does a search take in a large archive, and does the index find what exact search finds?

Planted vectors in two thousand clusters, of 512 numbers; every study has a measure to filter by.

    python -m benchmarks.archive_size --studies 100000 --work WORK --out FILE.json

100,000 studies take 1 GB of memory and a minute; 1,000,000 (with the index) 6 GB of disk and a quarter of an hour.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import machine, versions
from vlretrieval.store import EXACT_UP_TO, Store, StoreInfo
from vlretrieval.study import Entry, Study, Vectors

DIM, CLUSTERS, CHUNK, QUERIES = 512, 2000, 5000, 100
INFO = StoreInfo("planted@1", "planted@1", DIM, organs=("spleen",))


def main() -> None:
    """Fill an archive, search it, write figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    store = fill(asked.work / f"archive{asked.studies}", asked.studies)
    found: dict[str, Any] = {"studies": asked.studies, "dim": DIM}
    if asked.studies > EXACT_UP_TO:
        started = time.monotonic()
        store.build_index()
        found["index_s"] = round(time.monotonic() - started, 1)
    for name, where in (("plain", None), ("filter", "spleen_ml > 700")):
        found[name] = measure(store, where)
        print(name, found[name], flush=True)
    emit_json(asked.out, found | {"machine": machine(), "versions": versions()})


def vectors(start: int, count: int) -> np.ndarray:
    """The vectors of studies `start` and on."""
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, DIM)).astype(np.float32)
    rng = np.random.default_rng([1, start])
    made = centres[rng.integers(CLUSTERS, size=count)] + 0.8 * rng.normal(size=(count, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def fill(folder: Path, studies: int) -> Store:
    """Add what is missing."""
    store = Store.create(folder, INFO)
    for start in range(len(store), studies, CHUNK):
        rng = np.random.default_rng([2, start])
        store.add([entry(start + n, vector, rng.uniform(0, 1000)) for n, vector in enumerate(vectors(start, CHUNK))])
        print(f"{start + CHUNK} of {studies}", flush=True)
    store.tidy()
    return store


def entry(number: int, vector: np.ndarray, spleen_ml: float) -> Entry:
    """A planted study."""
    study = Study(
        f"id{number}", f"patient{number // 2}", f"name{number}", f"/scans/{number}", measures={"spleen_ml": spleen_ml}
    )
    return Entry(study, Vectors(vector))


def measure(store: Store, where: str | None) -> dict[str, float]:
    """Milliseconds of a search, first one left out, and recall@10 against exact search."""
    queries = vectors(0, QUERIES) + 0.01 * np.random.default_rng(3).normal(size=(QUERIES, DIM)).astype(np.float32)
    store.nearest(queries[0], 10, where)
    took, right = [], []
    for query in queries:
        started = time.perf_counter()
        found = store.nearest(query, 10, where)
        took.append(1000 * (time.perf_counter() - started))
        exact = store.nearest(query, 10, where, exact=True)
        right.append(len(set(found.keys.tolist()) & set(exact.keys.tolist())) / len(exact))
    p50, p95 = np.percentile(took, [50, 95])
    return {
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "recall_10": round(float(np.mean(right)), 4),
    }


if __name__ == "__main__":
    main()
