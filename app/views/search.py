"""Search an archive: words find studies, a study finds its like. The last answer stays while one looks around."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from app.archives import can_search
from app.desk import archives, desk, is_local, visitor
from app.open import open_scan
from app.studies import Problem, Refused
from app.text import name_of, say
from app.widgets.archive import archive_facts, choose_archive, show_archive
from app.widgets.hits import show_hits
from app.widgets.intake import ask_for_files
from app.widgets.problems import plain, show_problem
from app.widgets.question import Question, ask_filters
from app.widgets.running import watch_reading

_POLL_S = 0.3
_HITS = 20


def main() -> None:
    """Archive, question, answer."""
    st.title(say("search.title"), anchor=False)
    st.markdown(say("search.lead"))
    if not is_local():
        st.info(say("search.shared"), icon=":material/info:")
    elif not can_search():
        show_problem(Problem(say("search.missing"), say("search.missing.advice")))
    else:
        _search()
    st.divider()
    st.caption(say("app.footer"))


def _search() -> None:
    archive = choose_archive()
    facts = archive_facts(archive)
    if facts is not None and facts["studies"]:
        _ask(archive, facts)
        _show_answer()
    show_archive(archive, facts)


def _ask(archive: Path, facts: dict[str, Any]) -> None:
    form, example = st.container(), st.container()
    with example:
        _take_example()  # before the form is drawn, which offers it
    with form, st.form("search-form", border=True):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            words = st.text_input(say("search.words"), key="search-words", placeholder=say("search.example"))
            asked = st.form_submit_button(say("search.go"), type="primary", key="search-go", icon=":material/search:")
        left, right = st.columns(2)
        with left:
            like = _choose_example()
        with right:
            organs = ["", *facts["organs"]]
            organ = st.selectbox(say("search.organ"), organs, format_func=_organ, key="search-organ")
        with st.expander(say("search.filters"), icon=":material/tune:"):
            filters = ask_filters(facts["regions"], facts["organs"])
        st.caption(say("search.help"))
    if asked:
        _begin(archive, Question(words.strip(), like, str(organ or ""), filters))


def _organ(name: str) -> str:
    return name_of("organ", name) if name else say("search.organ.whole")


def _choose_example() -> str:
    own = {view.id: view.title for view in desk().studies(visitor()) if view.phase == "read"}
    new = st.session_state.pop("search-new", "")
    if new in own:
        st.session_state["search-like"] = new
    elif st.session_state.get("search-like", "") not in ("", *own):
        st.session_state["search-like"] = ""
    chosen = st.selectbox(
        say("search.like"),
        ["", *own],
        format_func=lambda study: own.get(study) or say("search.like.none"),
        key="search-like",
    )
    return str(chosen or "")


def _take_example() -> None:
    """A scan of the visitor's, handed in here: it becomes one of their studies and the example to search by."""
    with st.expander(say("search.upload"), icon=":material/upload:"):
        try:
            study = ask_for_files(say("search.upload.label"), "search")
        except Refused as refused:
            show_problem(refused.problem)
            return
        if study is not None:
            st.session_state["search-reading"] = study
            st.rerun()
        if "search-reading" in st.session_state:
            _watch_reading(st.session_state["search-reading"])


def _watch_reading(study: str) -> None:
    view = desk().view(study, visitor())
    if view.phase == "reading":
        watch_reading(study)
        return
    if view.problem is not None:
        show_problem(view.problem)
        return
    st.session_state.pop("search-reading")
    st.session_state["search-new"] = study
    st.success(say("search.upload.done", name=plain(view.title)))


def _begin(archive: Path, question: Question) -> None:
    """Ask; the answer's number is kept for the visit, so that it is there when the visitor comes back to the page."""
    words = question.sentence()
    st.session_state.pop("search-asked", None)
    try:
        if question.like:
            example, organ = question.like, question.organ
            number = archives().search_like(visitor(), archive, example, words=words, organ=organ, hits=_HITS)
        elif words:
            number = archives().search(visitor(), archive, words, _HITS)
        else:
            st.info(say("search.empty"), icon=":material/info:")
            return
    except Refused as refused:
        show_problem(refused.problem)
        return
    st.session_state["search-asked"] = (number, bool(question.like), words)


def _show_answer() -> None:
    if "search-asked" not in st.session_state:
        return
    number, like, words = st.session_state["search-asked"]
    now = archives().view(visitor(), number)
    if now.state in ("queued", "running"):
        _wait(number)
    elif now.problem is not None:
        show_problem(now.problem)
    elif now.facts is not None:
        if words:
            st.caption(say("search.asked", words=plain(words)))
        _show_found(number, dict(now.facts), like=like)
    else:
        st.info(say("end.cancelled"), icon=":material/info:")


def _show_found(number: str, facts: dict[str, Any], *, like: bool) -> None:
    try:
        show_hits(number, facts, like=like, opened=open_scan)
    except Refused as refused:
        show_problem(refused.problem)


@st.fragment(run_every=_POLL_S)
def _wait(number: str) -> None:
    now = archives().view(visitor(), number)
    if now.state not in ("queued", "running"):
        st.rerun()
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        stage = name_of("stage", now.stage) if now.stage else say("run.starting")
        st.progress(now.fraction, text=stage)
        st.button(say("run.cancel"), key="search-stop", on_click=archives().cancel, args=(visitor(), number))


main()
