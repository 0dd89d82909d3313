"""Two results side by side: choosing the other one, linking the pictures, and what changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import Any

import streamlit as st

from app.desk import desk, visitor
from app.results import OrganRow, Result
from app.studies import RunView, StudyView, TaskView
from app.text import name_of, say, volume_text
from app.widgets.models import title_of
from app.widgets.problems import plain, show_problem
from app.widgets.tables import swatch
from app.widgets.viewer import side_of

_POLL_S = 0.4


@dataclass(frozen=True)
class Other:
    """The other result."""

    view: StudyView
    run: RunView
    result: Result


def choose_other(view: StudyView, run: RunView, result: Result) -> Other | None:
    """Let the visitor choose another result of theirs, in the address too."""
    choices = _choices(view, run, result)
    if not choices:
        return None
    by_key = {f"{other.view.id}/{other.run.number}": other for other in choices}
    asked = f"{st.query_params.get('with', '')}/{st.query_params.get('with_result', '')}"
    st.session_state["compare-with"] = asked if asked in by_key else ""

    def change() -> None:
        study, _, number = str(st.session_state["compare-with"]).partition("/")
        if study:
            st.query_params["with"], st.query_params["with_result"] = study, number
        else:
            st.query_params.pop("with", None)
            st.query_params.pop("with_result", None)

    chosen = st.selectbox(
        say("compare.with"),
        ["", *by_key],
        format_func=lambda key: _words(by_key[key]) if key else say("compare.none"),
        key="compare-with",
        on_change=change,
        width=230,
        label_visibility="collapsed",
    )
    return by_key.get(str(chosen))


def _choices(view: StudyView, run: RunView, result: Result) -> list[Other]:
    """Finished results that share an organ with this one, those of this scan first."""
    names = {row.name for row in result.organs}
    found = []
    for study in sorted(desk().studies(visitor()), key=lambda study: study.id != view.id):
        for other in study.runs:
            if other.state != "done" or (study.id, other.number) == (view.id, run.number):
                continue
            theirs = desk().result(study.id, visitor(), other.number)
            if theirs is not None and names & {row.name for row in theirs.organs}:
                found.append(Other(study, other, theirs))
    return found


def _words(other: Other) -> str:
    model = title_of(other.run.model)
    return say("compare.item", title=other.view.title, number=other.run.number, model=model)


def comparing(view: StudyView, run: RunView, other: Other) -> TaskView:
    """How the comparison stands at this moment: picture and table are to be of one."""
    return desk().errands.compare(view.id, visitor(), run.number, other.view.id, other.run.number)


def other_side(run: RunView, other: Other, task: TaskView) -> dict[str, Any] | None:
    """What the viewer has to know of the other side; None while it is not known how the two lie."""
    if task.state != "done" or other.view.scan is None:
        return None
    facts = _facts(task)
    return {
        **side_of(other.view.id, other.view.scan, other.run, other.result),
        "title": _words(other),
        "matrix": facts["matrix"],
        "difference": f"run/{run.number}/difference/{other.view.id}/{other.run.number}",
    }


def _facts(task: TaskView) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((task.folder / "comparison.json").read_text("utf-8"))
    return facts


def show_comparison(view: StudyView, run: RunView, result: Result, other: Other, task: TaskView) -> None:
    """What changed, organ by organ, and how far that can be trusted."""
    if task.problem is not None:
        show_problem(task.problem)
    elif task.state != "done":
        _wait(view, run, other)
    else:
        facts = _facts(task)
        st.subheader(say("compare.table"), anchor=False)
        st.caption(plain(_words(other)))
        st.html(f'<div class="scroller">{_table(result, other.result, facts)}</div>')
        st.caption(_trust(facts, result, other.result))


@st.fragment(run_every=_POLL_S)
def _wait(view: StudyView, run: RunView, other: Other) -> None:
    if comparing(view, run, other).state not in ("queued", "running"):
        st.rerun()
    st.progress(0.5, text=say("compare.working"))


def _table(result: Result, other: Result, facts: dict[str, Any]) -> str:
    theirs = {row.name: row for row in other.organs}
    overlap = {row["name"]: row["dice"] for row in facts["organs"]}
    heads = [
        say("table.organ"),
        f"{say('table.volume')} ({say('compare.this')})",
        f"{say('table.volume')} ({say('compare.other')})",
        say("compare.change"),
        say("compare.percent"),
        say("compare.dice"),
    ]
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    rows = "".join(_row(row, theirs[row.name], overlap.get(row.name)) for row in result.organs if row.name in theirs)
    return f'<table class="organs" id="comparison"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(mine: OrganRow, theirs: OrganRow, dice: float | None) -> str:
    none, change = say("table.none"), mine.volume_ml - theirs.volume_ml
    cells = [
        swatch(mine.colour) + escape(name_of("organ", mine.name)),
        volume_text(mine.volume_ml) if mine.volume_ml else escape(say("table.absent")),
        volume_text(theirs.volume_ml) if theirs.volume_ml else escape(say("table.absent")),
        _signed(change, volume_text(abs(change))),
        _signed(change, f"{abs(change) / theirs.volume_ml * 100:.0f}") if theirs.volume_ml else none,
        none if dice is None else f"{dice:.3f}",
    ]
    return f'<tr data-organ="{escape(mine.name)}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _signed(change: float, text: str) -> str:
    return f"{'+' if change > 0 else '−' if change < 0 else '±'}{text}"


def _trust(facts: dict[str, Any], result: Result, other: Result) -> str:
    whole = {row.name for row in result.organs if row.volume_ml > 0 and not row.touches_edge}
    shared = len(whole & {row.name for row in other.organs if row.volume_ml > 0 and not row.touches_edge})
    match facts["kind"]:
        case "same grid":
            return say("compare.same")
        case "rigid":
            return say("compare.rigid", organs=shared, residual=facts["residual_mm"])
        case "shift":
            return say("compare.shift", organs=shared, residual=facts["residual_mm"])
    return say("compare.unaligned")
