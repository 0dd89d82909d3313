"""Facts of planted profiles, and whether what is said of them can be read again."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
from vlretrieval.facts.grammar import all_kinds, describe, every_sentence, phrases, say
from vlretrieval.facts.kinds import ANYWHERE, BY_NAME, KINDS, PAROTIDS, read_facts
from vlretrieval.facts.reader import read_words
from vlretrieval.profile import OrganProfile, Profile

SLICES = 60
ML = 1000 / 64  # voxels of 4 mm in a millilitre


def organ(low: int, high: int, ml: float, hu: float = 0.0) -> OrganProfile:
    voxels = np.zeros(SLICES)
    voxels[low:high] = ml * ML / (high - low)
    return OrganProfile(voxels, voxels * hu, voxels * hu**2)


def profile(organs: dict[str, OrganProfile], metal_ml: float = 0.0, **changes: object) -> Profile:
    body = np.full(SLICES, 150 / 0.16)  # 150 cm2
    metal = np.full(SLICES, metal_ml * ML / SLICES)
    values = {"spacing_mm": (1.0, 1.0, 2.5), "field_mm": 500.0} | changes
    return Profile(organs, frozenset(organs), body, 0.27 * body, metal, 0 * body, **values)  # type: ignore[arg-type]


def test_facts_of_a_planted_neck() -> None:
    right, left = organ(30, 40, 33, -20), organ(31, 41, 22, -30)
    facts = read_facts(profile(dict(zip(PAROTIDS, (right, left), strict=True)), metal_ml=3))
    assert facts["right_parotid"] == "large"
    assert facts["left_parotid"] == "medium"
    assert facts["parotid_side"] == "right"
    assert facts["parotid_density"] == "mixed"
    assert facts["upper_end"] == "high"  # 19 slices of 4 mm
    assert facts["lower_end"] == "middle"  # 120 mm
    assert facts["metal"] == "heavy"
    assert facts["length"] == "long"
    assert facts["neck"] == "medium"
    assert facts["fat"] == "average"
    assert "mandible_size" not in facts


def test_the_mirrored_patient_has_the_other_side() -> None:
    whole = profile(dict(zip(PAROTIDS, (organ(30, 40, 33), organ(30, 40, 22)), strict=True)))
    assert read_facts(whole.mirrored())["parotid_side"] == "left"
    assert read_facts(whole.mirrored())["left_parotid"] == "large"


def test_nothing_is_said_of_an_organ_that_the_scan_cuts() -> None:
    whole = profile(dict(zip(PAROTIDS, (organ(30, 40, 33), organ(30, 40, 22)), strict=True)))
    cut = read_facts(whole.cut(35, SLICES))
    assert not {"right_parotid", "parotid_side", "lower_end"} & set(cut)
    assert read_facts(whole.cut(20, SLICES))["right_parotid"] == "large"


def test_an_organ_that_was_not_contoured_is_unknown_and_not_absent() -> None:
    assert "brainstem" not in read_facts(profile({}))
    assert read_facts(profile({"brainstem": organ(50, 60, 20)}))["brainstem"] == "cut"
    assert read_facts(profile({"brainstem": organ(40, 55, 20)}))["brainstem"] == "whole"


def test_other_parts_of_the_body_are_told_only_what_is_true_of_any() -> None:
    facts = read_facts(profile({}, field_mm=170.0, spacing_mm=(1.0, 1.0, 5.0)), head_neck=False)
    assert set(facts) == {"length"}
    assert set(read_facts(profile({}), head_neck=False)) == ANYWHERE


def test_every_kind_can_be_said_in_both_languages() -> None:
    assert set(all_kinds()) == set(BY_NAME)
    for kind in KINDS:
        for language in ("en", "zh"):
            known = phrases(kind.name, language)  # type: ignore[arg-type]
            assert set(known.words) == set(kind.values), kind.name
            assert not set(known.frames) & set(known.held_out), kind.name


def test_a_description_states_each_fact_once() -> None:
    rng = np.random.default_rng(1)
    facts = {"metal": "heavy", "length": "long", "parotid_side": "right"}
    assert describe(facts, rng).count(". ") == 2
    assert describe(facts, rng, language="zh").count("。") == 3


def test_sentences_of_training_are_read_without_a_mistake() -> None:
    """Where two facts share a sentence nobody could tell them apart: there is none."""
    for kind in KINDS:
        for value in kind.values:
            for sentence in every_sentence(kind.name, value):
                assert read_words(sentence).get(kind.name) == value, sentence


def test_sentences_that_were_held_out_are_mostly_read() -> None:
    rng = np.random.default_rng(0)
    said = [(kind.name, value, say(kind.name, value, rng, "test")) for kind in KINDS for value in kind.values] * 4
    right = sum(read_words(text).get(kind) == value for kind, value, text in said)
    wrong = sum(read_words(text).get(kind, value) != value for kind, value, text in said)
    assert right / len(said) > 0.8
    assert wrong / len(said) < 0.1


def test_other_words_state_nothing() -> None:
    assert read_words("") == {}
    assert read_words("Pleural effusion on the right with consolidation.") == {}
