"""A model's limits, beside every result."""

from __future__ import annotations

import streamlit as st

from app.catalogue import models
from app.results import Result
from app.studies import Refused
from app.text import card_words, say
from app.widgets.models import words_of
from app.widgets.problems import plain


def show_result_limits(result: Result) -> None:
    """What the model of this result does not do, open to be read."""
    try:
        model = next((one for one in models() if one.name == result.model), None)
    except Refused:
        model = None
    if model is None or not model.limits:
        return
    title, _, field = words_of(model)
    with st.container(border=True):
        st.markdown(f"**{say('result.limits', model=plain(title))}**")
        st.caption(say("model.field", field=field))
        st.markdown("\n".join(f"- {plain(card_words(limit))}" for limit in model.limits))
