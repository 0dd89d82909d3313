"""Facts -> words, in English and Chinese, by frames of which some are kept for tests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from vlretrieval.facts.kinds import BY_NAME, Facts

Split = Literal["train", "test", "unknown_words"]
Language = Literal["en", "zh"]
_FILE = Path(__file__).with_name("grammar.yaml")
_SLOT = re.compile(r"<(\w+)>")


@dataclass(frozen=True)
class Phrases:
    """How one kind is said in one language.

    Attributes:
        frames, held_out: sentences with slots; the latter never stand in a training text.
        words: of each value; `unknown` ones are not even words of a training text of this kind.
    """

    frames: tuple[str, ...]
    held_out: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    unknown: Mapping[str, tuple[str, ...]]


@cache
def _grammar() -> tuple[dict[str, dict[str, Phrases]], dict[str, list[str]]]:
    raw = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    kinds = {
        kind: {language: _phrases(entry) for language, entry in said.items()} for kind, said in raw["kinds"].items()
    }
    return kinds, raw["shared"]


def _phrases(entry: dict[str, Any]) -> Phrases:
    words, unknown = {}, {}
    for value, listed in entry["values"].items():
        known = [str(word) for word in listed]
        bar = known.index("|") if "|" in known else len(known)
        words[str(value)], unknown[str(value)] = tuple(known[:bar]), tuple(known[bar + 1 :])
    return Phrases(tuple(entry["frames"]), tuple(entry["held_out"]), words, unknown)


def phrases(kind: str, language: Language = "en") -> Phrases:
    """The phrases of a kind."""
    return _grammar()[0][kind][language]


def say(kind: str, value: str, rng: np.random.Generator, split: Split = "train", language: Language = "en") -> str:
    """One sentence for one fact."""
    known = phrases(kind, language)
    frames = known.frames if split == "train" else known.held_out
    words = known.unknown[value] if split == "unknown_words" else ()
    text = _pick(frames, rng).replace("<value>", _pick(words or known.words[value], rng))
    return _SLOT.sub(lambda slot: _pick(_grammar()[1][slot[1]], rng), text)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def describe(facts: Facts, rng: np.random.Generator, split: Split = "train", language: Language = "en") -> str:
    """A description that states these facts, in random order."""
    names = list(facts)
    rng.shuffle(names)
    sentences = [say(name, facts[name], rng, split, language) for name in names]
    return "。".join(sentences) + "。" if language == "zh" else ". ".join(sentences) + "."


def every_sentence(kind: str, value: str, split: Split = "train", language: Language = "en") -> Iterator[str]:
    """All sentences of a fact, with the first choice of every shared word."""
    known = phrases(kind, language)
    frames = known.frames if split == "train" else known.held_out
    for frame in frames:
        for word in known.words[value]:
            yield _SLOT.sub(lambda slot: _grammar()[1][slot[1]][0], frame.replace("<value>", word))


def all_kinds() -> tuple[str, ...]:
    """Kinds that the grammar can say; the same as those that can be read."""
    return tuple(name for name in BY_NAME if name in _grammar()[0])
