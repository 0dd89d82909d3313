"""Models: what is installed, how well it does, what it is not for; and taking over one."""

from __future__ import annotations

import json
from html import escape

import streamlit as st

from app.catalogue import Model, models, own_shelf
from app.desk import desk, is_local, visitor
from app.paths import path_of
from app.studies import Refused
from app.text import card_words, name_of, say
from app.widgets.models import words_of
from app.widgets.problems import plain, show_problem
from app.widgets.tables import swatch

_POLL_S = 0.5


def main() -> None:
    """All models as cards, and the import below them."""
    st.title(say("models.title"), anchor=False)
    st.markdown(say("models.lead"))
    try:
        for model in models():
            _show_card(model)
    except Refused as refused:
        show_problem(refused.problem)
    _show_import()
    st.divider()
    st.caption(say("app.footer"))


def _show_card(model: Model) -> None:
    title, description, field = words_of(model)
    with st.container(border=True):
        st.subheader(plain(title), anchor=False)
        st.caption(say("model.version", name=model.name, version=model.version))
        st.markdown(plain(description))
        st.html(_organs(model))
        left, right = st.columns([3, 2], gap="large")
        with left:
            _show_scores(model)
        with right:
            _show_facts(model, field)


def _organs(model: Model) -> str:
    chips = "".join(f"<li>{swatch(colour)}{escape(name_of('organ', name))}</li>" for name, colour in model.organs)
    return f'<ul class="chips" aria-label="{escape(say("models.organs"))}">{chips}</ul>'


def _show_scores(model: Model) -> None:
    st.markdown(f"**{say('models.scores')}**")
    if not model.scores:
        st.caption(say("models.unknown_scores") if model.learned else say("models.unscored"))
        return
    heads = ("organ", "cases", "dice", "surface", "misses")
    head = "".join(f"<th>{escape(say(f'models.score.{name}'))}</th>" for name in heads)
    rows = "".join(
        f"<tr data-organ='{escape(score.organ)}'><td>{escape(name_of('organ', score.organ))}</td><td>{score.cases}</td>"
        f"<td>{_figure(score.dice)}</td><td>{_figure(score.surface_dice)}</td><td>{score.misses}</td></tr>"
        for score in model.scores
    )
    table = f'<table class="organs"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    st.html(f'<div class="scroller">{table}</div>')
    mean = f"{say('models.mean', dice=model.mean_dice)}. " if model.mean_dice is not None else ""
    st.caption(mean + say("models.scored_on", data=plain(model.scored_on)))


def _figure(value: float | None) -> str:
    return say("table.none") if value is None else f"{value:.2f}"


def _show_facts(model: Model, field: str) -> None:
    _fact(say("models.field"), [field])
    _fact(say("models.use"), [card_words(model.intended_use)])
    _fact(say("models.limits"), list(map(card_words, model.limits)))
    _fact(say("models.sources"), list(model.sources))
    _fact(say("models.licence"), [model.licence])
    if model.variants:
        st.caption(say("models.variants", variants=", ".join(model.variants)))


def _fact(title: str, lines: list[str]) -> None:
    if not lines:
        return
    text = plain(lines[0]) if len(lines) == 1 else "\n".join(f"- {plain(line)}" for line in lines)
    st.markdown(f"**{title}**\n\n{text}")


def _show_import() -> None:
    st.subheader(say("models.import"), anchor=False)
    if not is_local():
        st.caption(say("models.import.shared"))
        return
    st.caption(say("models.import.lead"))
    with st.form("import-model", border=True):
        left, right = st.columns([3, 2])
        path = left.text_input(say("models.import.path"), key="import-path").strip()
        name = right.text_input(say("models.import.name"), key="import-name").strip()
        asked = st.form_submit_button(say("models.import.go"), key="import-go")
    if asked and path and name:
        _import(path, name)
    if "import" in st.session_state:
        _watch(st.session_state["import"])
    if imported := st.session_state.pop("imported", None):
        st.success(say("models.import.done", name=plain(imported)))


def _import(path: str, name: str) -> None:
    try:
        st.session_state["import"] = desk().imports.start(visitor(), path_of(path), own_shelf(), name)
    except Refused as refused:
        show_problem(refused.problem)


@st.fragment(run_every=_POLL_S)
def _watch(number: str) -> None:
    task = desk().imports.view(visitor(), number)
    if task.state in ("queued", "running"):
        st.progress(task.fraction, text=say("models.import.working"))
        return
    st.session_state.pop("import", None)
    if task.problem is not None:
        show_problem(task.problem)
    elif task.state == "done":
        st.session_state["imported"] = json.loads((task.folder / "model.json").read_text("utf-8"))["name"]
        st.rerun()


main()
