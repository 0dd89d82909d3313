"""Every sentence that the page shows, by key. A second language is a second file beside `en.json`."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

LANGUAGE = "en"


@lru_cache
def _sentences(language: str) -> dict[str, str]:
    content: dict[str, str] = json.loads(Path(__file__).with_name(f"{language}.json").read_text("utf-8"))
    return content


def say(key: str, **values: object) -> str:
    """The sentence of that key, its gaps filled with `values`.

    Raises:
        KeyError: no such key; a test walks through all that the page uses.
    """
    return _sentences(LANGUAGE)[key].format(**values)


def name_of(kind: str, code: str) -> str:
    """The words for a code such as ('organ', 'spinal_cord'); an unknown code is made readable."""
    return _sentences(LANGUAGE).get(f"{kind}.{code}", code.replace("_", " ").capitalize())
