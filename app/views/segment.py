"""Segment a CT: hand it in, see it, choose a model, watch, read the result. The study's id lives in the address."""

from __future__ import annotations

from html import escape

import streamlit as st

from app.desk import desk, is_local, visitor
from app.folders import KEEP_HOURS
from app.results import Result
from app.studies import Refused, RunView, StudyView
from app.text import name_of, say
from app.widgets.comparison import Other, choose_other, comparing, other_side, show_comparison
from app.widgets.downloads import show_downloads
from app.widgets.intake import show_intake
from app.widgets.limits import show_result_limits
from app.widgets.models import choose_model, title_of
from app.widgets.problems import CAN_BE_ACCEPTED, plain, show_problem, show_remarks, show_warnings
from app.widgets.running import watch_reading, watch_run
from app.widgets.scan import in_one_line, show_summary
from app.widgets.tables import show_histograms, show_table
from app.widgets.training import show_training
from app.widgets.viewer import fetch_ahead, show_viewer


def main() -> None:
    """Show the step that the study in the address has reached."""
    study = st.query_params.get("study", "")
    if study:
        _show_study(desk().view(study, visitor()))
    else:
        _begin()
    _footer()


def _begin() -> None:
    _, middle, _ = st.columns([1, 3, 1])
    with middle:
        study = show_intake()
        fetch_ahead()
    if study is not None:
        st.query_params["study"] = study
        st.rerun()


def _show_study(view: StudyView) -> None:
    if view.phase == "reading":
        st.subheader(plain(view.title), anchor=False)
        watch_reading(view.id)
    elif view.phase == "unreadable":
        _show_unreadable(view)
    elif view.phase == "gone" or view.scan is None:
        st.info(say("end.gone"), icon=":material/info:")
        st.button(say("end.again"), type="primary", on_click=_leave, key="again")
    else:
        _show_read(view)


def _show_unreadable(view: StudyView) -> None:
    problem = view.problem
    if problem is not None and problem.series:
        st.subheader(say("series.title"), anchor=False)
        st.markdown(say("series.lead", name=plain(view.title)))
        number = st.radio(
            say("series.label"),
            range(len(problem.series)),
            format_func=lambda index: plain(problem.series[index]),
            key="series",
        )
        if st.button(say("series.open"), type="primary", key="open-series"):
            desk().choose_series(view.id, visitor(), str(number + 1))
            st.rerun()
    elif problem is not None:
        st.subheader(say("end.unreadable"), anchor=False)
        can_accept = problem.code in CAN_BE_ACCEPTED
        show_problem(problem, can_accept=can_accept)
        if can_accept:
            _ask_for_reason(view)
    st.button(say("end.again"), type="secondary", on_click=_delete, args=(view.id,), key="again")


def _ask_for_reason(view: StudyView) -> None:
    """A visitor who knows better may go on, on record."""
    with st.expander(say("accept.title")), st.form("accept-form", border=False):
        st.markdown(say("accept.lead"))
        reason = st.text_input(say("accept.label"), max_chars=200, key="accept-reason")
        if not st.form_submit_button(say("accept.go"), key="accept"):
            return
        try:
            desk().accept(view.id, visitor(), reason)
        except Refused as refused:
            show_problem(refused.problem)
            return
    st.rerun()


def _show_read(view: StudyView) -> None:
    """Head, news, viewer and what belongs below it stand in places of their own, so that the viewer stays put."""
    head, news, picture, below = st.container(), st.container(), st.container(), st.container()
    run = view.run(_asked_run())
    result = desk().result(view.id, visitor(), run.number) if run is not None else None
    preview = _preview(view, run) if result is None else None
    with head:
        other = _show_head(view, run, result)
    with picture:  # before the news: the browser is busy with it longest
        task = compare = None
        if other is not None and run is not None:
            task = comparing(view, run, other)
            compare = other_side(run, other, task)
        shown = result or preview
        saved = show_viewer(view.id, view.scan, run, shown, is_preview=preview is not None, compare=compare)  # type: ignore[arg-type]
    if saved is not None:
        st.query_params["result"] = str(saved)
        st.rerun()
    with news:
        _show_news(view, run, result, is_preview=preview is not None)
    with below:
        if run is None or result is None:
            show_summary(view)
        else:
            if other is not None and task is not None:
                show_comparison(view, run, result, other, task)
            _show_result(view, run, result)


def _preview(view: StudyView, run: RunView | None) -> Result | None:
    """The coarse result, while the full one is made."""
    return desk().preview(view.id, visitor(), run.number) if run is not None and run.state == "running" else None


def _asked_run() -> int | None:
    text = st.query_params.get("result", "")
    return int(text) if text.isdecimal() else None


def _show_head(view: StudyView, run: RunView | None, result: Result | None) -> Other | None:
    """Title, versions and ways out in one row; the result to compare with, where one is chosen."""
    left, right = st.columns([1, 2], vertical_alignment="center")
    about = _made_by(run, result) if run is not None and result is not None else in_one_line(view)
    left.html(f'<div class="study-head"><h2>{escape(view.title)}</h2><span>{escape(about)}</span></div>')
    with right.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        if len(view.runs) > 1:
            _choose_run(view, run)
        other = choose_other(view, run, result) if run is not None and result is not None else None
        help_text = say("study.delete.help")
        st.button(say("study.delete"), on_click=_delete, args=(view.id,), type="tertiary", key="delete", help=help_text)
        st.button(say("study.new"), on_click=_leave, key="new", icon=":material/add:")
    return other


def _made_by(run: RunView, result: Result) -> str:
    model = title_of(result.model)
    if result.corrected:
        organs = ", ".join(name_of("organ", name) for name in result.corrected.get("organs", []))
        return say("result.by.corrected", model=model, version=result.version, organs=organs)
    return say("result.by", model=model, version=result.version, seconds=run.seconds)


def _choose_run(view: StudyView, run: RunView | None) -> None:
    numbers = [one.number for one in view.runs]
    by_number = {one.number: one for one in view.runs}

    def words(number: int) -> str:
        one = by_number[number]
        kind = "study.version.corrected" if one.corrected else "study.version.model"
        return say(kind, number=number, model=title_of(one.model))

    def change() -> None:
        st.query_params["result"] = str(st.session_state["result-number"])

    st.session_state["result-number"] = run.number if run is not None else numbers[-1]
    st.selectbox(
        say("study.version"),
        numbers,
        format_func=words,
        key="result-number",
        on_change=change,
        width=230,
        label_visibility="collapsed",
    )


def _show_news(view: StudyView, run: RunView | None, result: Result | None, *, is_preview: bool) -> None:
    """What is to be done next, and what must not be overlooked."""
    if run is not None and run.state in ("queued", "running"):
        watch_run(view.id, run.number, preview=is_preview)
    elif run is not None and run.state == "cancelled":
        st.info(say("end.cancelled"), icon=":material/info:")
    elif run is not None and run.problem is not None:
        st.markdown(f"**{say('end.failed')}**")
        show_problem(run.problem)
    if result is not None:
        is_empty = not any(row.volume_ml > 0 for row in result.organs)
        if is_empty and not any(note.severity == "warning" for note in result.notes):
            st.warning(say("result.nothing"), icon=":material/search_off:")
        show_warnings(result.notes)
    elif run is None or run.state in ("failed", "cancelled"):
        with st.container(border=True):
            model = choose_model(view.id, "first")
        if model is not None:
            _run(view, model)
        if view.scan is not None:
            show_warnings(view.scan.notes)


def _run(view: StudyView, model: str) -> None:
    try:
        number = desk().run(view.id, visitor(), model)
    except Refused as refused:
        show_problem(refused.problem)
        return
    st.query_params["result"] = str(number)
    st.rerun()


def _show_result(view: StudyView, run: RunView, result: Result) -> None:
    show_remarks(result.notes)
    st.subheader(say("result.organs"), anchor=False)
    show_table(result)
    show_result_limits(result)
    with st.expander(say("result.histograms"), icon=":material/bar_chart:"):
        show_histograms(result)
    st.subheader(say("result.downloads"), anchor=False)
    show_downloads(view.id, view.scan, run)  # type: ignore[arg-type]
    left, right = st.columns(2, gap="large")
    with left, st.expander(say("study.summary"), icon=":material/info:"):
        show_summary(view)
    with right, st.expander(say("model.again"), icon=":material/add:"):
        model = choose_model(view.id, "again")
    if model is not None:
        _run(view, model)
    if is_local():
        show_training(view.id, run, result)


def _leave() -> None:
    for name in ("study", "result", "with", "with_result"):
        st.query_params.pop(name, None)


def _delete(study: str) -> None:
    desk().forget(study, visitor())
    _leave()


def _footer() -> None:
    st.divider()
    where = say("app.privacy.local" if is_local() else "app.privacy.shared", hours=KEEP_HOURS)
    st.caption(f"{say('app.footer')} {where}")


main()
