"""A running study: where it stands, and a way to stop it."""

from __future__ import annotations

import streamlit as st

from app.desk import desk
from app.services import Status
from app.text import name_of, say
from app.widgets.problems import plain

_POLL_S = 0.5


@st.fragment(run_every=_POLL_S)
def watch(study: str) -> None:
    """Follow a job until it ends, then let the page show how it ended."""
    status = desk().status(study)
    if status.state not in ("queued", "running"):
        st.rerun()
    st.subheader(say("run.title", name=plain(status.title)))
    st.progress(status.fraction, text=_where(status))
    left, right = st.columns([3, 1], vertical_alignment="center")
    left.caption(say("run.leave"))
    with right.container(horizontal_alignment="right"):
        st.button(say("run.cancel"), key="cancel", on_click=desk().cancel, args=(study,))


def _where(status: Status) -> str:
    if status.state == "queued":
        if status.before == 0:
            return say("run.waiting.next")
        return say("run.waiting.one") if status.before == 1 else say("run.waiting.many", count=status.before)
    stage = name_of("stage", status.stage) if status.stage else say("run.starting")
    return f"{stage} · {say('run.clock', seconds=status.seconds)}"
