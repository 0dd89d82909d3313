"""Every sentence that the page shows, by key, in English and Chinese.

Which language a visitor reads is known to the page alone (`app.language` sets the asker); processes and tests
that have no visitor speak English.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from medseg.exports.words import Language, explain, organ_name
from medseg.exports.words.numbers import volume_text as volume_text

LANGUAGES: dict[str, str] = {"en": "English", "zh": "简体中文"}
_FIRST: Language = "en"


def _nobody() -> Language:
    return _FIRST


class _Asker:
    """Who knows the language of the visitor that is being served."""

    language: Callable[[], Language] = staticmethod(_nobody)


def ask(source: Callable[[], Language]) -> None:
    """From now on, ask `source` which language the visitor reads."""
    _Asker.language = staticmethod(source)


def language() -> Language:
    """The language of the visitor that is being served."""
    return _Asker.language()


@lru_cache
def sentences(code: str) -> dict[str, str]:
    """All sentences of a language."""
    content: dict[str, str] = json.loads(Path(__file__).with_name(f"{code}.json").read_text("utf-8"))
    return content


def say(key: str, **values: object) -> str:
    """The sentence of that key, its gaps filled with `values`.

    Raises:
        KeyError: no such key; a test walks through all that the page uses.
    """
    return sentences(language())[key].format(**values)


def name_of(kind: str, code: str) -> str:
    """The words for a code such as ('window', 'bone'); an unknown code is made readable."""
    if kind == "organ":
        return organ_name(code, language())
    return sentences(language()).get(f"{kind}.{code}", code.replace("_", " ").capitalize())


def told(kind: str, code: str, english: str) -> tuple[str, str]:
    """What the engine says, in the visitor's language, and its own words beside where they are others.

    Args:
        kind: 'finding', 'error', 'advice' or 'model'.
        code: of the finding, class of the error, 'NAME.title' and the like.
        english: what the engine says.
    """
    words = explain(kind, code, language())
    return (words, english) if words else (english, "")


def card_words(sentence: str) -> str:
    """A sentence of a model's card, in the visitor's language where it is known."""
    return explain("card", sentence, language()) or sentence
