"""Texts for training: facts in words, and words that one edit makes false."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlretrieval.facts.grammar import Language, Split, say
from vlretrieval.facts.kinds import BY_NAME, KINDS, PAROTIDS, Facts

PLACE = {kind.name: place for place, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Sentence:
    """A sentence and the fact that it states."""

    text: str
    kind: str
    value: str


def encode_facts(facts: Facts) -> NDArray[np.int64]:
    """[K]: the number of each kind's value; -1 where nothing is known."""
    codes = np.full(len(KINDS), -1, dtype=np.int64)
    for name, value in facts.items():
        codes[PLACE[name]] = BY_NAME[name].values.index(value)
    return codes


def write_sentences(
    facts: Facts, rng: np.random.Generator, split: Split = "train", language: Language = "en"
) -> list[Sentence]:
    """A sentence for every fact, in random order."""
    names = list(facts)
    rng.shuffle(names)
    return [Sentence(say(name, facts[name], rng, split, language), name, facts[name]) for name in names]


def pick_facts(facts: Facts, count: int, rng: np.random.Generator) -> Facts:
    """`count` of the facts, or all."""
    names = list(facts)
    rng.shuffle(names)
    return {name: facts[name] for name in names[:count]}


def edit_fact(facts: Facts, known: Facts, rng: np.random.Generator) -> Facts:
    """The same facts with one of them made false of the study: its side, its presence or its size.

    Args:
        facts: what is stated.
        known: everything that is known of the study.
        rng: decides which.
    """
    name = str(rng.choice(list(facts)))
    swapped = _other_side(name)
    if swapped in known and known[swapped] != facts[name] and rng.random() < 0.5:
        return {key: value for key, value in facts.items() if key not in (name, swapped)} | {swapped: facts[name]}
    others = [value for value in BY_NAME[name].values if value != facts[name]]
    return facts | {name: str(rng.choice(others))}


def _other_side(name: str) -> str:
    sides = {"right_parotid": "left_parotid", "left_parotid": "right_parotid"}
    return sides.get(name, "")


def organ_of(kind: str, organs: tuple[str, ...], rng: np.random.Generator) -> int:
    """Place of the organ that a kind speaks of, -1 for none; one of the two where it speaks of a pair."""
    subject = BY_NAME[kind].subject
    if subject == "parotid_glands":
        subject = str(rng.choice(PAROTIDS))
    return organs.index(subject) if subject in organs else -1
