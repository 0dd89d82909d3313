"""The first step: a scan. It is taken in as soon as it is there; nothing has to be pressed."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from app.desk import desk, is_local, visitor
from app.folders import KEEP_HOURS
from app.studies import Refused, StudyView
from app.text import name_of, say
from app.widgets.problems import plain, show_problem

_MAX_MB = 2048


def show_intake() -> str | None:
    """Ask for a scan.

    Returns:
        The id of the study that was begun, else None.
    """
    st.title(say("intake.title"))
    st.markdown(say("intake.lead"))
    try:
        with st.container(border=True):
            study = _choose_scan()
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button(say("intake.example"), key="example", icon=":material/play_circle:"):
                study = desk().take_example(visitor())
            st.caption(say("intake.example.help"))
    except Refused as refused:
        show_problem(refused.problem)
        return None
    return study or _show_own()


def _choose_scan() -> str | None:
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
    return ask_for_files(say("intake.files"), "files") if way == "files" else _ask_folder()


def ask_for_files(label: str, key: str) -> str | None:
    """A field for the files of one scan; the id of the study that was begun, else None.

    Raises:
        Refused: the server is busy, or full.
    """
    # Any ending is accepted: most DICOM files have none, and the reader judges by content.
    files = st.file_uploader(label, accept_multiple_files=True, max_upload_size=_MAX_MB, key=_key(key))
    st.caption(say("intake.files.help"))
    return _take_uploads(files) if files else None


def _ask_folder() -> str | None:
    files = st.file_uploader(
        say("intake.folder"), accept_multiple_files="directory", max_upload_size=_MAX_MB, key=_key("folder")
    )
    st.caption(say("intake.folder.help"))
    return _take_uploads(files) if files else None


def _key(name: str) -> str:
    """A new field for every scan: the files of the last one are gone."""
    return f"{name}-{st.session_state.get('scans', 0)}"


def _take_uploads(files: list[UploadedFile]) -> str:
    with st.spinner(say("intake.copying")):
        study = desk().take_uploads(files, visitor())
    st.session_state["scans"] = st.session_state.get("scans", 0) + 1
    _let_go(files)
    return study


def _let_go(files: list[UploadedFile]) -> None:
    """The files lie on the disk now; Streamlit would keep them in memory as long as the session lasts."""
    context = get_script_run_ctx()
    if context is not None and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        for file in files:
            context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)


def _ask_path() -> str | None:
    with st.form("path-form", border=False):
        text = st.text_input(say("intake.path"), placeholder=say("intake.path.placeholder"), key="path").strip()
        st.caption(say("intake.path.help"))
        opened = st.form_submit_button(say("intake.path.open"), key="open-path")
    return desk().take_path(Path(text), visitor()) if opened and text else None


def _show_own() -> str | None:
    """Scans that this browser brought earlier."""
    own = desk().studies(visitor())
    if not own:
        return None
    st.subheader(say("intake.yours"), anchor=False)
    st.caption(say("intake.yours.help", hours=KEEP_HOURS))
    chosen = None
    for study in own:
        if _own(study):
            chosen = study.id
    return chosen


def _own(study: StudyView) -> bool:
    with st.container(horizontal=True, vertical_alignment="center"):
        opened = st.button(
            plain(study.title), key=f"own-{study.id}", help=say("intake.open", name=study.title), type="tertiary"
        )
        st.caption(", ".join(dict.fromkeys(run.model for run in study.runs)))
    return opened
