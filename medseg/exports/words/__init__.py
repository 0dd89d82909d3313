"""The words of reports and the names of organs, in English and Chinese."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
_SIDES = {"right": "右", "left": "左"}


def say(language: Language, key: str, **values: object) -> str:
    """The words of that key, its gaps filled with `values`."""
    return _words(language)[key].format(**values)


def explain(kind: str, code: str, language: Language) -> str:
    """What a finding, an error, an advice or a model is, in a language that the engine does not speak; else empty.

    Args:
        kind: 'finding', 'error', 'advice', 'model' or 'card'.
        code: of the finding, class of the error, 'NAME.title' and the like; of a card the English sentence itself,
            so that a sentence that was changed is not explained by its old translation.
        language: English is what the engine says already, so it has no entries.
    """
    return "" if language == "en" else _words(f"messages.{language}").get(f"{kind}.{code}", "")


def organ_name(name: str, language: Language = "en") -> str:
    """An organ as people read it: 'Parotid gland, left' or '左腮腺'; a name that is not known stays English."""
    words = name.split("_")
    side = words[-1] if words[-1] in _SIDES else ""
    stem = "_".join(words[:-1]) if side else name
    if language == "zh" and (known := _chinese(stem)):
        return f"{_SIDES.get(side, '')}{known}"
    title = stem.replace("_", " ")
    title = title[:1].upper() + title[1:]
    return f"{title}, {side}" if side else title


def _chinese(stem: str) -> str:
    if known := _words("organs.zh").get(stem):
        return known
    if found := re.fullmatch(r"vertebrae_([CTLS])(\d+)", stem):
        part = {"C": "颈椎", "T": "胸椎", "L": "腰椎", "S": "骶椎"}[found[1]]
        return f"第{found[2]}{part}"
    if found := re.fullmatch(r"rib_(left|right)_(\d+)", stem):
        return f"{_SIDES[found[1]]}第{found[2]}肋"
    return ""


@lru_cache
def _words(name: str) -> dict[str, str]:
    content: dict[str, str] = json.loads(Path(__file__).with_name(f"{name}.json").read_text("utf-8"))
    return content
