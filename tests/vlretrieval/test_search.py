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

    def match(self, text: str, features: np.ndarray) -> np.ndarray | None:
        return None


class Judge(Compass):
    """Its matching head likes the largest feature."""

    features = 1  # type: ignore[assignment]

    def match(self, text: str, features: np.ndarray) -> np.ndarray | None:
        return features[:, 0]


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


def many(folder: Path, features: int = 0) -> Store:
    """130 studies, each a little further from the north; the first ones have the least feature."""
    made = Store.create(folder / "many", StoreInfo("compass@1", "organs@1", 2, features))
    turns = np.linspace(0.01, 1.5, 130)
    made.add(
        [
            Entry(
                Study(f"{n:03}", f"{n:03}", f"{n:03}", f"/{n}", text="."),
                Vectors(np.float32([np.cos(a), np.sin(a)]), features=np.float32([n]) if features else None),
            )
            for n, a in enumerate(turns)
        ]
    )
    return made


@pytest.mark.parametrize("judges", [True, False])
def test_as_many_hits_as_are_asked_for(tmp_path: Path, judges: bool) -> None:
    found = Searcher(many(tmp_path), Compass(judges=judges)).by_words("something", 120)
    assert len(found.hits) == 120
    assert found.notes == ()


def test_the_matching_head_orders_the_first_fifty_and_the_others_stay_behind(tmp_path: Path) -> None:
    searcher = Searcher(many(tmp_path, features=1), Judge(judges=False))
    searcher.weights["matching"] = 10.0
    found = searcher.by_words("something", 120, rerank=True)
    assert [hit.study.name for hit in found.hits] == [f"{n:03}" for n in [*range(49, -1, -1), *range(50, 120)]]
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert found.notes == ()


def test_without_a_trained_matching_head_the_order_stays_and_a_note_says_so(tmp_path: Path) -> None:
    kept = Searcher(many(tmp_path, features=1), Compass(judges=False))
    assert kept.by_words("something", 60).notes == ()
    found = kept.by_words("something", 60, rerank=True)
    assert [hit.study.name for hit in found.hits] == [f"{n:03}" for n in range(60)]
    assert "Not re-ranked: compass@1" in found.notes[0]
