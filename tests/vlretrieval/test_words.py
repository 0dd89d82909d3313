"""Which words are denied, in the index and in the question, by one rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb")
from vlretrieval.store import Store, StoreInfo
from vlretrieval.study import Entry, Study, Vectors
from vlretrieval.words import DENIED, analyse


def denied(text: str) -> set[str]:
    return {term.removeprefix(DENIED) for term in analyse(text) if term.startswith(DENIED)}


def said(text: str) -> set[str]:
    return {term for term in analyse(text) if not term.startswith(DENIED)}


@pytest.mark.parametrize(
    ("text", "there", "not_there"),
    [
        ("Large right effusion without septa.", {"large", "right", "effusion"}, {"septa"}),
        ("mass in the parotid, no metal", {"mass", "parotid"}, {"metal"}),
        ("No metal but a mass", {"mass"}, {"metal"}),
        ("no metal with enlarged parotid", {"enlarg", "parotid"}, {"metal"}),
        ("No metal (large mass)", {"large", "mass"}, {"metal"}),
        ("The heart isn't large; a mass", {"heart", "mass"}, {"large"}),
        ("No effusion over 1,5 cm", set(), {"effusion", "cm"}),
        ("The brainstem is not complete", {"brainstem"}, {"complete"}),
        ("Nodes that did not reach 1 cm", {"node"}, {"reach"}),
    ],
)
def test_a_denial_reaches_forward_to_the_next_border(text: str, there: set[str], not_there: set[str]) -> None:
    assert there <= said(text)
    assert not there & denied(text)
    assert not_there <= denied(text)
    assert not not_there & said(text)


@pytest.mark.parametrize(
    "text",
    [
        "No effusion, mass, or nodule in the lung",
        "No effusion, mass or nodule",
        "Effusion, mass and nodule were not detected.",
        "Effusion or mass or nodule isn't seen",
        "Effusion, mass or nodule have not been clearly identified.",
        "No finding compatible with effusion, mass or nodule",
    ],
)
def test_a_list_is_denied_as_one(text: str) -> None:
    assert denied(text) >= {"effusion", "mass", "nodule"}
    assert not said(text) & {"effusion", "mass", "nodule"}


@pytest.mark.parametrize(
    ("text", "there", "not_there"),
    [
        ("Effusion was not observed in the right lung.", set(), {"effusion", "right", "lung"}),
        ("A mass with septa was not seen", set(), {"mass", "septa"}),
        ("The shoulders are not in view", set(), {"shoulder"}),
        ("Spleen is absent", set(), {"spleen"}),
        ("absent metal", set(), {"metal"}),
        ("Lung is normal, mass not seen", {"lung", "normal"}, {"mass"}),
        ("Effusion is there and a mass was not seen", {"effusion"}, {"mass"}),
        ("A mass that was not observed in the previous examination", {"mass"}, {"previou"}),
        ("A mass was not observed", set(), {"mass"}),
    ],
)
def test_what_was_not_seen_is_denied_backwards(text: str, there: set[str], not_there: set[str]) -> None:
    assert there <= said(text)
    assert not there & denied(text)
    assert not_there <= denied(text)
    assert not not_there & said(text)


@pytest.mark.parametrize(
    ("text", "there", "not_there"),
    [
        ("右侧腮腺未见肿块，左侧增大", {"腮腺", "左侧", "增大"}, {"肿块"}),
        ("腮腺增大；无金属伪影", {"腮腺", "增大"}, {"金属", "伪影"}),
        ("没有积液、结节，肿块", {"肿块"}, {"积液", "结节"}),
        ("脾脏未增大", {"脾脏"}, {"增大"}),
        ("右侧积液未见，左侧肿块", {"左侧", "肿块"}, {"积液"}),
        ("肩部未包括", set(), {"肩部"}),
    ],
)
def test_chinese_denials(text: str, there: set[str], not_there: set[str]) -> None:
    assert there <= said(text)
    assert not_there <= denied(text)
    assert not not_there & said(text)


def test_a_question_finds_what_is_there_and_what_is_denied(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "archive", StoreInfo("toy@1", "organs@1", 2))
    reports = {
        "has": "Large right effusion without septa.",
        "none": "Effusion was not observed.",
        "mass": "Mass in the parotid.",
    }
    store.add(
        [
            Entry(Study(name, name, name, f"/{name}", text=".", report=report), Vectors(np.ones(2)))
            for name, report in reports.items()
        ]
    )

    def found(text: str) -> list[str]:
        return [study.name for study in store.studies(store.by_words(text, 9).keys.tolist())]

    assert found("effusion") == ["has"]
    assert found("no effusion") == ["none"]
    assert found("mass in the parotid, no metal") == ["mass"]
