"""A running study: where it stands, and a way to stop it."""

from __future__ import annotations

import streamlit as st

from app.desk import desk, visitor
from app.studies import RunView
from app.text import name_of, say
from app.widgets.models import title_of
from app.widgets.problems import plain
from app.widgets.style import base_path

_POLL_S, _READING_POLL_S = 0.5, 1.0


@st.fragment(run_every=_READING_POLL_S)
def watch_reading(study: str) -> None:
    """Follow the reading of a scan, see it as soon as it can be seen; the page goes on by itself."""
    st.progress(0.5, text=say("study.reading"))
    place = st.empty()
    # Waiting here, not by a quick pulse of the browser's: each would cost it work while the scan is being read.
    desk().await_reading(study, visitor(), _READING_POLL_S, or_picture=True)
    if desk().first_picture(study, visitor()) is not None:
        place.html(
            f'<img class="first-picture" src="{base_path()}/study/{study}/first.png" alt="{say("viewer.first")}">'
        )
        desk().await_reading(study, visitor(), _READING_POLL_S)
    if desk().view(study, visitor()).phase != "reading":
        st.rerun()


@st.fragment(run_every=_POLL_S)
def watch_run(study: str, number: int, *, preview: bool) -> None:
    """Follow a run to its end, then let the page show how it ended."""
    run = desk().view(study, visitor()).run(number)
    if run is None or run.state not in ("queued", "running"):
        st.rerun()
    if (desk().preview(study, visitor(), number) is not None) != preview:
        st.rerun()
    with st.container(border=True):
        left, right = st.columns([5, 1], vertical_alignment="center")
        with left:
            st.markdown(f"**{say('run.title', model=plain(title_of(run.model)))}**")
            st.progress(run.fraction, text=where(run))
            st.caption(say("run.preview") if preview else say("run.leave"))
        with right.container(horizontal_alignment="right"):
            st.button(say("run.cancel"), key="cancel", on_click=desk().cancel, args=(study, visitor(), number))


def where(run: RunView) -> str:
    """The stage in words, and the clock."""
    if run.state == "queued":
        if run.before == 0:
            return say("run.waiting.next")
        return say("run.waiting.one") if run.before == 1 else say("run.waiting.many", count=run.before)
    stage = name_of("stage", run.stage) if run.stage else say("run.starting")
    return f"{stage} · {say('run.clock', seconds=run.seconds)}"
