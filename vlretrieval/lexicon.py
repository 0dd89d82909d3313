"""What people call organs, regions, sizes and comparisons, in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("lexicon.yaml")


@cache
def _raw() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


@cache
def _groups() -> dict[str, dict[str, list[str]]]:
    return {
        group: {key: [str(word) for word in words] for key, words in entries.items()}
        for group, entries in _raw().items()
        if isinstance(entries, dict)
    }


@cache
def stop_words() -> frozenset[str]:
    """English words that say nothing by themselves."""
    return frozenset(_raw()["stop"].split())


def words_of(group: str) -> Mapping[str, list[str]]:
    """{name: what people call it} of a group of the file."""
    return _groups()[group]


@cache
def names_by_word(group: str) -> Mapping[str, str]:
    """{word in lower case: name}."""
    return {word.lower(): name for name, words in words_of(group).items() for word in words}


@cache
def pattern(group: str) -> re.Pattern[str]:
    """Finds any word of a group, the longest first; English words as whole words."""
    words = sorted(names_by_word(group), key=len, reverse=True)
    return re.compile("|".join(map(_whole, words)), re.IGNORECASE)


def _whole(word: str) -> str:
    """Letters end where the word does, signs anywhere: '>' is found in 'spleen>30', and 'cm' not in 'cmH2O'."""
    before = "(?<![a-z])" if _is_latin(word[0]) else ""
    after = "(?![a-z])" if _is_latin(word[-1]) else ""
    return before + re.escape(word) + after


def _is_latin(letter: str) -> bool:
    return letter.isascii() and letter.isalnum()


def title(organ: str) -> str:
    """How an organ of a label table is called in a sentence: 'right parotid gland'."""
    for side in ("right", "left"):
        if organ.endswith(f"_{side}"):
            return f"{side} {title(organ.removesuffix(f'_{side}'))}"
    return words_of("organs").get(organ, [organ.replace("_", " ")])[0]
