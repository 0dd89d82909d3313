"""A reviewed result becomes a case to train on. For visitors at this computer: the folder is one of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import streamlit as st

from app.desk import desk, visitor
from app.paths import path_of
from app.results import Result
from app.studies import Refused, RunView
from app.text import name_of, say
from app.widgets.problems import plain, show_problem

_POLL_S = 0.5


def show_training(study: str, run: RunView, result: Result) -> None:
    """Ask which organs were looked at and where the case goes; add it."""
    with st.expander(say("training.title"), icon=":material/school:"):
        st.markdown(say("training.lead"))
        found = [row.name for row in result.organs if row.volume_ml > 0]
        seen = st.multiselect(
            say("training.organs"),
            found,
            default=result.corrected.get("organs", []),
            format_func=lambda name: name_of("organ", name),
            key=f"training-organs-{run.number}",
            placeholder=say("intake.choose"),
        )
        default = os.environ.get("MEDSEG_TRAINING", str(Path("~/.local/share/medseg/training").expanduser()))
        folder = st.text_input(say("training.folder"), default, key="training-folder")
        key = f"training-asked-{study}-{run.number}"
        if st.button(say("training.go"), disabled=not seen or not folder.strip(), key="training-go"):
            try:
                st.session_state[key] = (path_of(folder), tuple(seen))
            except Refused as refusal:
                show_problem(refusal.problem)
        if key in st.session_state:
            _watch(study, run.number, *st.session_state[key])


@st.fragment(run_every=_POLL_S)
def _watch(study: str, number: int, folder: Path, organs: tuple[str, ...]) -> None:
    task = desk().errands.training_case(study, visitor(), number, folder, organs)
    if task.state == "done":
        made = json.loads((task.folder / "case.json").read_text("utf-8"))
        st.success(say("training.done", case=made["case"], folder=plain(made["folder"])))
    elif task.problem is not None:
        show_problem(task.problem)
    else:
        st.progress(task.fraction)
