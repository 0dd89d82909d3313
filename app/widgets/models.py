"""Which model: its name, what it is for, its limits, and what it will take here."""

from __future__ import annotations

import streamlit as st

from app.catalogue import Model, models
from app.desk import desk, visitor
from app.studies import Problem, Refused
from app.text import card_words, say, told
from app.widgets.problems import plain, show_problem

_POLL_S = 0.5


def title_of(name: str) -> str:
    """A model's title in the visitor's language; its name where it is not installed."""
    try:
        model = next((model for model in models() if model.name == name), None)
    except Refused:
        model = None
    return name if model is None else words_of(model)[0]


def words_of(model: Model) -> tuple[str, str, str]:
    """Title, description and field."""
    title, _ = told("model", f"{model.name}.title", model.title)
    description, _ = told("model", f"{model.name}.description", model.description)
    field, _ = told("model", f"{model.name}.field", model.field)
    return title, description, field


def choose_model(study: str, key: str) -> str | None:
    """Let the visitor choose, in one row; the model's name once the button is pressed."""
    try:
        installed = models()
    except Refused as refused:
        show_problem(refused.problem)
        return None
    if not installed:
        show_problem(Problem(say("model.none"), say("model.none.advice")))
        return None
    by_name = {model.name: model for model in installed}
    titles = {model.name: words_of(model)[0] for model in installed}
    with st.container(horizontal=True, vertical_alignment="center"):
        name = str(
            st.selectbox(
                say("model.choose"),
                list(titles),
                format_func=titles.__getitem__,
                key=f"model-{key}",
                label_visibility="collapsed",
                width=340,
            )
        )
        started = st.button(say("model.run"), type="primary", key=f"run-{key}", icon=":material/play_arrow:")
        with st.popover(say("model.limits"), type="tertiary", icon=":material/info:"):
            _list_limits(by_name[name])
        if not started:  # a forecast that comes just now draws the page anew, and the press would be lost
            show_forecast(study, name)
    _, description, field = words_of(by_name[name])
    st.caption(f"{plain(description)} {say('model.field', field=plain(field))}")
    return name if started else None


def _list_limits(model: Model) -> None:
    st.markdown(f"**{say('result.limits', model=plain(words_of(model)[0]))}**")
    st.markdown("\n".join(f"- {plain(card_words(limit))}" for limit in model.limits))
    st.caption(say("model.version", name=model.name, version=model.version))


def show_forecast(study: str, model: str) -> None:
    """Time and memory on this computer, as soon as they are known."""
    forecast = desk().errands.forecast(study, visitor(), model)
    if forecast is None:
        _wait_for_forecast(study, model)
        return
    memory = forecast.memory_mb / 1024
    st.caption(say("forecast.known", seconds=max(1.0, forecast.seconds), memory=memory))


@st.fragment(run_every=_POLL_S)
def _wait_for_forecast(study: str, model: str) -> None:
    if desk().errands.forecast(study, visitor(), model) is not None:
        st.rerun()
    if not desk().errands.has_failed(study, model):
        st.caption(say("forecast.asking"))
