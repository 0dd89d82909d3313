"""Segment a CT: hand it in, watch it, see the result. The study's id lives in the address."""

from __future__ import annotations

import streamlit as st

from app.desk import desk, is_local
from app.folders import KEEP_HOURS
from app.results import Result, read_scene
from app.services import Problem, Refused, Status
from app.text import say
from app.widgets.intake import Take, show_intake
from app.widgets.problems import plain, show_problem
from app.widgets.progress import watch
from app.widgets.results import show_downloads, show_findings, show_table
from app.widgets.viewer import show_viewer


def main() -> None:
    """Show the step that the study in the address has reached."""
    study = st.query_params.get("study", "")
    status = desk().status(study) if study else Status("gone")
    if not study:
        _begin()
    elif status.state in ("queued", "running"):
        watch(study)
    elif status.state == "done":
        _show_result(study, status)
    else:
        _show_end(study, status)
    _footer()


def _begin() -> None:
    answer = show_intake()
    if answer is None:
        return
    take, model = answer
    try:
        study = _take_in(take, model)
    except Refused as refused:
        show_problem(refused.problem)
        return
    st.query_params["study"] = study
    st.rerun()


def _take_in(take: Take, model: str) -> str:
    with st.spinner(say("intake.copying")):
        study = take()
    desk().run(study, model)
    return study


def _leave() -> None:
    st.query_params.clear()


def _delete(study: str) -> None:
    desk().forget(study)
    _leave()


def _show_end(study: str, status: Status) -> None:
    problem = status.problem
    if problem is not None and problem.series:
        _ask_series(study, status, problem)
        return
    if problem is not None:
        st.subheader(say("end.failed"))
        show_problem(problem)
    else:
        st.info(say(f"end.{status.state}"), icon=":material/info:")
    st.button(say("end.again"), type="primary", on_click=_delete, args=(study,), key="again")


def _ask_series(study: str, status: Status, problem: Problem) -> None:
    st.subheader(say("series.title"))
    st.markdown(say("series.lead", name=plain(status.title)))
    number = st.radio(
        say("series.label"),
        range(len(problem.series)),
        format_func=lambda index: plain(problem.series[index]),
        key="series",
    )
    with st.container(horizontal=True):
        if st.button(say("series.run"), type="primary", key="run-series"):
            desk().run(study, status.model, series=str(number + 1))
            st.rerun()
        st.button(say("end.again"), type="tertiary", on_click=_delete, args=(study,), key="again")


def _show_result(study: str, status: Status) -> None:
    st.set_page_config(layout="wide")
    result = desk().result(study)
    _show_heading(result, status)
    show_findings(result)
    organs = {row.name: (row.value, row.colour) for row in result.organs if row.volume_ml > 0}
    window = "head_neck" if result.model.startswith("head-neck") else "soft_tissue"
    show_viewer(study, read_scene(result.folder), organs, window)
    st.subheader(say("result.organs"))
    show_table(result)
    st.subheader(say("result.downloads"))
    show_downloads(result)


def _show_heading(result: Result, status: Status) -> None:
    left, right = st.columns(2, vertical_alignment="bottom")
    with left:
        st.subheader(plain(status.title))
        st.caption(say("result.by", model=result.model, version=result.version, seconds=status.seconds))
    with right.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        st.button(
            say("result.delete"),
            on_click=_delete,
            args=(result.study,),
            type="tertiary",
            key="delete",
            help=say("result.delete.help"),
        )
        st.button(say("result.new"), on_click=_leave, key="new", icon=":material/add:")


def _footer() -> None:
    st.divider()
    where = say("app.privacy.local" if is_local() else "app.privacy.shared", hours=KEEP_HOURS)
    st.caption(f"{say('app.footer')} {where}")


main()
