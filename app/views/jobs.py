"""Batches: all studies of a folder, with progress, failures by name, and the way into the viewer."""

from __future__ import annotations

from html import escape
from pathlib import Path

import streamlit as st

from app.batches import BatchRow, BatchView
from app.catalogue import models
from app.desk import batches, is_local
from app.downloads import EXPORTS
from app.open import open_result
from app.paths import path_of
from app.studies import Refused
from app.text import say, told
from app.widgets.models import title_of
from app.widgets.problems import plain, show_problem, way_out

_POLL_S = 1.0


def main() -> None:
    """Start a batch, or look at one."""
    st.title(say("jobs.title"), anchor=False)
    st.markdown(say("jobs.lead"))
    if not is_local():
        st.info(say("jobs.shared"), icon=":material/info:")
        return
    try:
        _start()
        _show_earlier()
    except Refused as refused:
        show_problem(refused.problem)
    for out in batches().known():
        _show(out)
    st.divider()
    st.caption(say("app.footer"))


def _start() -> None:
    names = [model.name for model in models()]
    with st.form("batch", border=True):
        left, right = st.columns(2)
        source = left.text_input(say("jobs.source"), placeholder="/data/studies", key="batch-source").strip()
        out = right.text_input(say("jobs.out"), placeholder="/data/results", key="batch-out").strip()
        model = left.selectbox(say("model.choose"), names, format_func=title_of, key="batch-model")
        formats = right.multiselect(
            say("jobs.formats"),
            EXPORTS,
            format_func=lambda name: say(f"download.{name}"),
            key="batch-formats",
            placeholder=say("intake.choose"),
        )
        asked = st.form_submit_button(say("jobs.start"), type="primary", key="batch-start")
    if asked and source and out:
        batches().start(Path(source), Path(out), str(model), ",".join(formats))


def _show_earlier() -> None:
    with st.expander(say("jobs.open_earlier")):
        text = st.text_input(say("jobs.earlier"), key="batch-earlier").strip()
        if text:
            view = batches().view(path_of(text).resolve())
            if view is None:
                st.info(say("jobs.none"), icon=":material/info:")
            else:
                _show_view(view, "earlier")


def _show(out: Path) -> None:
    view = batches().view(out)
    if view is not None and view.state == "running":
        _watch(str(out))
    elif view is not None:
        _show_view(view, str(out))


@st.fragment(run_every=_POLL_S)
def _watch(out: str) -> None:
    view = batches().view(Path(out))
    if view is None or view.state != "running":
        st.rerun()
    _show_view(view, out)


def _show_view(view: BatchView, key: str) -> None:
    with st.container(border=True):
        left, right = st.columns([5, 1], vertical_alignment="center")
        left.markdown(f"**{plain(str(view.out))}** · {say(f'jobs.state.{view.state}')}")
        if view.state == "running":
            right.button(say("jobs.cancel"), key=f"stop-{key}", on_click=batches().cancel, args=(view.out,))
            _show_progress(view)
        if view.problem is not None:
            show_problem(view.problem)
        for row in view.rows:
            _show_row(row, view.out, key)
        if view.skipped:
            with st.expander(say("jobs.skipped", count=len(view.skipped))):
                st.markdown("\n".join(f"- {plain(name)} {plain(reason)}" for name, reason in view.skipped[:200]))


def _show_progress(view: BatchView) -> None:
    if not view.total:
        st.progress(0.0, text=say("jobs.finding"))
        return
    share = (len(view.rows) + sum(fraction for _, fraction in view.running)) / view.total
    text = say("jobs.progress", done=len(view.rows), total=view.total)
    if view.seconds_left is not None:
        text += f" · {say('jobs.left', minutes=max(1, round(view.seconds_left / 60)))}"
    st.progress(min(1.0, share), text=text)
    under_way = [say("jobs.running", study=plain(study), share=100 * fraction) for study, fraction in view.running]
    st.caption(", ".join(under_way))


def _show_row(row: BatchRow, out: Path, key: str) -> None:
    name, state, link = st.columns([3, 6, 1], vertical_alignment="center")
    name.html(f'<span class="study" data-study="{escape(row.study)}">{escape(row.study)}</span>')
    if row.state == "failed":
        message, english = told("error", row.error, row.message)
        advice = way_out(row.error, row.advice)
        state.markdown(f":red[**{say('jobs.row.failed')}**] {plain(message)} {plain(english)} {plain(advice)}")
        return
    state.markdown(say(f"jobs.row.{row.state}", seconds=row.seconds))
    help_text = say("jobs.open", study=row.study)
    if link.button(say("jobs.open.short"), key=f"open-{key}-{row.study}", help=help_text, type="tertiary"):
        _open(row, out)


def _open(row: BatchRow, out: Path) -> None:
    try:
        open_result(row.path, out / row.study, row.model, row.series)
    except Refused as refused:
        show_problem(refused.problem)


main()
