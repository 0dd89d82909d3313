"""All that the page says stands in one file, and nothing stands there unused."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import app
from app.text import name_of, say

ROOT = Path(app.__file__).parent
SENTENCES: dict[str, str] = json.loads((ROOT / "text" / "en.json").read_text("utf-8"))


def patterns() -> set[str]:
    """Keys asked for anywhere in the page, as regular expressions (f-strings have gaps)."""
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("say", "name_of"):
                found.add(key_pattern(node))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_refused":
                key = ast.literal_eval(node.args[0])
                found |= {rf"problem\.{key}", rf"problem\.{key}\.advice"}
    return found


def key_pattern(call: ast.Call) -> str:
    key = call.args[0]
    if isinstance(key, ast.JoinedStr):
        return "".join(re.escape(p.value) if isinstance(p, ast.Constant) else r"[\w-]+" for p in key.values)
    if isinstance(key, ast.IfExp):
        return "|".join(re.escape(ast.literal_eval(branch)) for branch in (key.body, key.orelse))
    text = re.escape(ast.literal_eval(key))
    return text if isinstance(call.func, ast.Name) and call.func.id == "say" else rf"{text}\.[\w-]+"


def test_every_key_that_the_page_asks_for_is_there() -> None:
    for pattern in patterns():
        assert any(re.fullmatch(pattern, key) for key in SENTENCES), pattern


def test_no_sentence_is_left_over() -> None:
    whole = re.compile("|".join(patterns()))
    assert [key for key in SENTENCES if not whole.fullmatch(key)] == []


def test_gaps_are_filled_and_unknown_codes_made_readable() -> None:
    assert say("run.title", name="a") == "Segmenting a"
    assert name_of("organ", "parotid_gland_left") == "Parotid gland, left"
    assert name_of("organ", "some_new_organ") == "Some new organ"
