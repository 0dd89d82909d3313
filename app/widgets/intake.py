"""The first step: a scan, what to find in it, and a button."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from app.desk import desk, is_local
from app.services import Model, Problem, Refused, models
from app.text import name_of, say
from app.widgets.problems import show_problem

Take = Callable[[], str]
_MAX_MB = 2048


def show_intake() -> tuple[Take, str] | None:
    """Ask for a scan and a model.

    Returns:
        How to take the scan in and the model's name, once the visitor has pressed a button; else None.
    """
    st.title(say("intake.title"))
    st.markdown(say("intake.lead"))
    with st.container(border=True):
        take = _choose_scan()
    model = _choose_model()
    if model is None:
        return None
    with st.container(horizontal=True, vertical_alignment="center"):
        started = st.button(say("intake.run"), type="primary", disabled=take is None, key="run")
        example = st.button(say("intake.example"), key="example", icon=":material/play_circle:")
    if example:
        return (lambda: desk().take_example(say("intake.example.name"))), model
    return (take, model) if started and take is not None else None


def _choose_scan() -> Take | None:
    ways = ["files", "folder", "path"] if is_local() else ["files", "folder"]
    way = st.segmented_control(
        say("intake.way"),
        ways,
        default="files",
        required=True,
        format_func=lambda name: name_of("way", name),
        key="way",
    )
    if way == "path":
        return _ask_path()
    return _ask_files() if way == "files" else _ask_folder()


def _ask_files() -> Take | None:
    # Any ending is accepted: most DICOM files have none, and the reader judges by content.
    files = st.file_uploader(say("intake.files"), accept_multiple_files=True, max_upload_size=_MAX_MB, key="files")
    st.caption(say("intake.files.help"))
    return (lambda: _take_uploads(files)) if files else None


def _ask_folder() -> Take | None:
    files = st.file_uploader(
        say("intake.folder"), accept_multiple_files="directory", max_upload_size=_MAX_MB, key="folder"
    )
    st.caption(say("intake.folder.help"))
    return (lambda: _take_uploads(files)) if files else None


def _take_uploads(files: list[UploadedFile]) -> str:
    study = desk().take_uploads(files)
    _let_go(files)
    return study


def _let_go(files: list[UploadedFile]) -> None:
    """The files lie on the disk now; Streamlit would keep them in memory as long as the session lasts."""
    context = get_script_run_ctx()
    if context is not None and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        for file in files:
            context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)


def _ask_path() -> Take | None:
    text = st.text_input(say("intake.path"), placeholder=say("intake.path.placeholder"), key="path").strip()
    st.caption(say("intake.path.help"))
    return (lambda: desk().take_path(Path(text).expanduser())) if text else None


def _choose_model() -> str | None:
    try:
        installed = models()
    except Refused as refused:
        show_problem(refused.problem)
        return None
    if not installed:
        show_problem(Problem(say("intake.no_models"), say("intake.no_models.advice")))
        return None
    by_name = {model.name: model for model in installed}
    name = st.radio(
        say("intake.model"),
        list(by_name),
        format_func=lambda name: by_name[name].title,
        captions=[model.description for model in installed],
        key="model",
    )
    _show_limits(by_name[name])
    return str(name)


def _show_limits(model: Model) -> None:
    st.caption(say("intake.field", field=model.field))
    with st.expander(say("intake.limits")):
        st.markdown("\n".join(f"- {limit}" for limit in model.limits))
        st.caption(say("intake.version", name=model.name, version=model.version))
