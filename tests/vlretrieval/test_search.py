"""Words against vectors: the nearest as a whole are judged again, sentence by sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb")
from vlretrieval.inputs import StudyInput
from vlretrieval.search import Searcher
from vlretrieval.store import Store, StoreInfo
from vlretrieval.study import Entry, Study, Vectors

NORTH, EAST = np.eye(2, dtype=np.float32)


class Compass:
    """Every text points north; how likely it is, the east decides where this encoder judges at all."""

    id, dim, features, organs = "compass@1", 2, 0, ()
    fusion: Mapping[str, float] = {"words": 0.0}

    def __init__(self, *, judges: bool) -> None:
        self.judges = judges

    def studies(self, inputs: Sequence[StudyInput]) -> list[Vectors]:
        raise NotImplementedError

    def words(self, text: str) -> np.ndarray:
        return NORTH

    def likelihood(self, text: str, vectors: np.ndarray) -> np.ndarray | None:
        return np.log(np.clip(vectors @ EAST, 1e-3, 1)) if self.judges else None

    def match(self, text: str, features: np.ndarray) -> None:
        return None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / "archive", StoreInfo("compass@1", "organs@1", 2, organs=()))
    turns = {"north": 0.1, "between": 0.7, "east": 1.4}
    made.add(
        [
            Entry(Study(name, name, name, f"/{name}", text="."), Vectors(np.float32([np.cos(a), np.sin(a)])))
            for name, a in turns.items()
        ]
    )
    return made


def test_sentences_decide_among_the_nearest_and_the_hit_says_how_likely_they_are(store: Store) -> None:
    hits = Searcher(store, Compass(judges=True)).by_words("something").hits
    assert [hit.study.name for hit in hits] == ["east", "between", "north"]
    assert [reason.names for reason in hits[0].reasons if reason.kind == "likely"] == [("99%",)]


def test_an_encoder_that_does_not_judge_keeps_the_order_of_the_nearest(store: Store) -> None:
    hits = Searcher(store, Compass(judges=False)).by_words("something").hits
    assert [hit.study.name for hit in hits] == ["north", "between", "east"]
    assert [reason.text for reason in hits[0].reasons if reason.kind == "likeness"] == ["cosine 1.00"]
