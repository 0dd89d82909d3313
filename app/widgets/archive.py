"""Which archive is searched, and putting studies into it. For visitors at this computer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import streamlit as st

from app.archives import AnswerView, is_archive, own_archive
from app.catalogue import models
from app.desk import archives, visitor
from app.paths import path_of
from app.studies import Problem, Refused
from app.text import say
from app.widgets.models import title_of
from app.widgets.problems import plain, show_problem

_POLL_S = 0.5


def choose_archive() -> Path:
    """The archive of this visit; another one can be named."""
    if "archive" not in st.session_state:
        st.session_state["archive"] = str(own_archive())
    return Path(st.session_state["archive"])


def show_archive(archive: Path, facts: dict[str, Any] | None) -> None:
    """What the archive is, a way to another one, and a way to let it grow."""
    if facts is None:
        with st.container(border=True):
            st.markdown(f"**{say('archive.none')}**")
            st.markdown(say("archive.none.advice", folder=plain(_shown(archive))))
            _ask_to_index(archive)
            _name_another()
    else:
        with st.expander(_in_one_line(archive, facts), icon=":material/inventory_2:"):
            _ask_to_index(archive)
            _name_another()
    _show_indexing(archive)


def _shown(folder: Path) -> str:
    """A folder as people write it: the home is a tilde."""
    return f"~/{folder.relative_to(Path.home())}" if folder.is_relative_to(Path.home()) else str(folder)


def _in_one_line(archive: Path, facts: dict[str, Any]) -> str:
    count = say("archive.count", studies=facts["studies"])
    return f"{plain(_shown(archive))} · {count} · {say('archive.by', segmenter=plain(facts['segmenter']))}"


def _name_another() -> None:
    with st.form("archive-form", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(say("archive.folder"), key="archive-name", placeholder=_shown(own_archive())).strip()
        asked = st.form_submit_button(say("archive.open"), key="archive-open")
    if not asked or not text:
        return
    try:
        archive = path_of(text)
        is_archive(archive)  # one that cannot be asked is not kept: every later visit would ask it
    except Refused as refused:
        show_problem(refused.problem)
        return
    st.session_state["archive"] = str(archive)
    st.rerun()


def _ask_to_index(archive: Path) -> None:
    with st.form("index-form", border=False):
        left, right = st.columns([3, 2], vertical_alignment="bottom")
        source = left.text_input(say("archive.source"), placeholder="/data/studies", key="index-source").strip()
        try:
            names = [model.name for model in models()]
        except Refused as refused:
            show_problem(refused.problem)
            return
        segmenter = right.selectbox(say("archive.segmenter"), names, format_func=title_of, key="index-segmenter")
        asked = st.form_submit_button(say("archive.index"), key="index-start", type="primary")
        st.caption(say("archive.index.help"))
    if not asked or not source:
        return
    try:
        archives().index(visitor(), Path(source), archive, str(segmenter))
    except Refused as refused:
        show_problem(refused.problem)


def _show_indexing(archive: Path) -> None:
    now = archives().indexing(archive)
    if now is not None and now.state in ("queued", "running"):
        _watch(str(archive))
    elif now is not None:
        _show_end(now)


@st.fragment(run_every=_POLL_S)
def _watch(archive: str) -> None:
    now = archives().indexing(Path(archive))
    if now is None or now.state not in ("queued", "running"):
        st.session_state.pop("about", None)
        st.rerun()
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.progress(now.fraction, text=_where(now))
        st.button(say("run.cancel"), key="index-stop", on_click=archives().stop_indexing, args=(Path(archive),))


def _where(now: AnswerView) -> str:
    if now.stage != "index":
        return say("archive.finding")
    return say("archive.indexing", place=now.message)


def _show_end(now: AnswerView) -> None:
    if now.problem is not None:
        show_problem(now.problem)
    elif now.facts is None or now.facts["interrupted"]:
        st.info(say("archive.stopped"), icon=":material/info:")
    else:
        counts = {name: now.facts[name] for name in ("indexed", "unchanged", "failed")}
        show = st.warning if counts["failed"] else st.success
        lines = [say("archive.done", **counts)]
        lines += [f"- {plain(name)}: {plain(error)}" for name, error in now.facts["failures"][:20]]
        show("\n\n".join(lines))
        if skipped := now.facts["skipped"]:
            with st.expander(say("jobs.skipped", count=len(skipped))):
                st.markdown("\n".join(f"- {plain(name)} {plain(reason)}" for name, reason in skipped))


def archive_facts(archive: Path) -> dict[str, Any] | None:
    """What the archive holds, asked once a visit and again after indexing; waits for it on the page.

    Returns:
        None where there is no archive.
    """
    try:
        if not is_archive(archive):
            return None
        number = _asked_about(archive)
    except Refused as refused:
        _stop_at(refused.problem)
    now = archives().view(visitor(), number)
    if now.state in ("queued", "running"):
        _wait_for(number)
        st.stop()
    if now.problem is not None:
        st.session_state.pop("about")
        _stop_at(now.problem)
    if now.facts is None:
        st.session_state.pop("about")
        st.rerun()
    return dict(now.facts)


def _asked_about(archive: Path) -> str:
    """The number of the answer to what the archive holds."""
    asked = st.session_state.get("about")
    if asked is None or asked[0] != str(archive):
        asked = st.session_state["about"] = (str(archive), archives().about(visitor(), archive))
    return str(asked[1])


def _stop_at(problem: Problem) -> NoReturn:
    """This archive cannot be searched: say why, and offer another."""
    show_problem(problem)
    _name_another()
    st.stop()


@st.fragment(run_every=_POLL_S)
def _wait_for(number: str) -> None:
    if archives().view(visitor(), number).state not in ("queued", "running"):
        st.rerun()
    st.progress(0.5, text=say("archive.opening"))
