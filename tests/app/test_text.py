"""All that the page says stands in one file a language, and nothing stands there unused."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest

import app
from app.text import card_words, name_of, say, sentences, told
from vlretrieval.facts.kinds import BY_NAME

ROOT = Path(app.__file__).parent
VIEWER = "viewer."


def patterns() -> set[str]:
    """Keys asked for anywhere in the page, as regular expressions (f-strings have gaps)."""
    found = {pattern for path in ROOT.rglob("*.py") for pattern in asked_by(ast.parse(path.read_text("utf-8")))}
    return (
        found
        | set(map(re.escape, asked_by_viewer()))
        | {r"viewer\.(layout|plane|preset|tool)\.\w+"}
        | {r"viewer\.edit\.(paint|erase|fill)"}
    )


def asked_by(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id == "say":
            found |= key_patterns(node.args[0])
        elif node.func.id == "name_of" and ast.literal_eval(node.args[0]) != "organ":  # organs: medseg.exports.words
            found.add(rf"{re.escape(ast.literal_eval(node.args[0]))}\.[\w-]+")
        elif node.func.id == "refused":
            found |= {rf"problem\.{key}{end}" for key in key_patterns(node.args[0]) for end in ("", r"\.advice")}
        elif node.func.id == "CannotDraw":
            found.add(re.escape(f"{VIEWER}{ast.literal_eval(node.args[0])}"))
    return found


def key_patterns(key: ast.expr) -> set[str]:
    if isinstance(key, ast.JoinedStr):
        return {"".join(re.escape(p.value) if isinstance(p, ast.Constant) else r"[\w.-]+" for p in key.values)}
    if isinstance(key, ast.IfExp):
        return key_patterns(key.body) | key_patterns(key.orelse)
    if isinstance(key, ast.Name):  # a variable that a branch above has filled: both branches are literals
        return {r"study\.version\.\w+"}
    return {re.escape(ast.literal_eval(key))}


def asked_by_viewer() -> set[str]:
    """Keys in the viewer's program: words["key"] and the shortcuts'."""
    found = set()
    for path in (ROOT / "viewer" / "src").glob("*.js"):
        text = path.read_text("utf-8")
        found |= set(re.findall(r'words\["([\w.-]+)"\]', text)) | set(re.findall(r'"(keys\.\w+)"', text))
        for name in re.findall(r'#(?:check|number)\("([\w.]+)"', text):
            found |= {name, f"{name}.short"} if name.startswith("window") else {name}
    found |= set(re.findall(r'"reason": "([\w.]+)"', (ROOT / "edits.py").read_text("utf-8")))
    return {VIEWER + key for key in found}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_key_that_the_page_asks_for_is_there(language: str) -> None:
    for pattern in patterns():
        assert any(re.fullmatch(pattern, key) for key in sentences(language)), pattern


def test_no_sentence_is_left_over() -> None:
    whole = re.compile("|".join(patterns()))
    assert [key for key in sentences("en") if not whole.fullmatch(key)] == []


def test_both_languages_say_the_same_things_with_the_same_gaps() -> None:
    english, chinese = sentences("en"), sentences("zh")
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert gaps(text) == gaps(chinese[key]), key


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_fact_that_a_search_can_match_has_a_name(language: str) -> None:
    assert {key.removeprefix("fact.") for key in sentences(language) if key.startswith("fact.")} == set(BY_NAME)


def gaps(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_chinese_is_chinese() -> None:
    shared = {key for key, text in sentences("zh").items() if not re.search(r"[\u4e00-\u9fff]", text)}
    assert all(len(re.findall(r"[A-Za-z]{4,}", sentences("zh")[key])) <= 2 for key in shared), shared


def test_gaps_are_filled_and_unknown_codes_made_readable() -> None:
    assert say("run.title", model="a") == "Segmenting with a"
    assert name_of("organ", "parotid_gland_left") == "Parotid gland, left"
    assert name_of("organ", "some_new_organ") == "Some new organ"


def test_the_engines_words_stand_alone_in_english_and_beside_their_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told("error", "NotCTError", "x.nii: MR.") == ("x.nii: MR.", "")
    monkeypatch.setattr("app.text._Asker.language", staticmethod(lambda: "zh"))
    words, english = told("error", "NotCTError", "x.nii: MR.")
    assert (words, english) == ("不是 CT。", "x.nii: MR.")
    assert told("error", "NobodyKnows", "x.") == ("x.", "")
    assert card_words("Research use only. Not a medical device.") == "仅供研究使用，不是医疗器械。"
    assert card_words("A limit that was changed.") == "A limit that was changed."
