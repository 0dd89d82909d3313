"""Errors and remarks as advice: what happened, and what to do, in the visitor's language."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from app.scans import Note
from app.studies import Problem
from app.text import told


def show_problem(problem: Problem) -> None:
    """One red box: the sentence, and below it the way out."""
    message, english = told("error", problem.code, problem.message)
    advice, _ = told("advice", problem.code, problem.advice)
    lines = [f"**{plain(message)}**" if english else plain(message), plain(english), plain(advice)]
    st.error("\n\n".join(line for line in lines if line), icon=":material/error:")


def show_warnings(notes: Iterable[Note]) -> None:
    """What must not be overlooked, each in a box of its own."""
    for note in notes:
        if note.severity == "warning":
            st.warning(note_text(note), icon=":material/warning:")


def show_remarks(notes: Iterable[Note]) -> None:
    """What is good to know, together and without alarm."""
    remarks = [note_text(note) for note in notes if note.severity != "warning"]
    if remarks:
        st.info("\n\n".join(remarks), icon=":material/info:")


def note_text(note: Note) -> str:
    """A remark, in the visitor's language first."""
    words, english = told("finding", note.code, note.message)
    return f"{plain(words)} {plain(english)}".strip()


def plain(text: str) -> str:
    """Text from files and names, shielded from being read as Markdown."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#+!|~<>$:" else sign for sign in text)
