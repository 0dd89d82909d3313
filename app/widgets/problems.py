"""Errors and remarks as advice: what happened, and what to do, in the visitor's language."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from app.scans import Note
from app.studies import Problem
from app.text import say, told

# What a visitor may use all the same, with a reason (`medseg.imaging.acceptance`); damage is none of it.
CAN_BE_ACCEPTED = ("NotCTError", "NotHUError")


def show_problem(problem: Problem, *, can_accept: bool = False) -> None:
    """One red box: the sentence, and below it the way out.

    Args:
        problem: what went wrong.
        can_accept: the control by which it can be accepted stands below.
    """
    message, english = told("error", problem.code, problem.message)
    advice = way_out(problem.code, problem.advice, can_accept=can_accept)
    lines = [f"**{plain(message)}**" if english else plain(message), plain(english), plain(advice)]
    st.error("\n\n".join(line for line in lines if line), icon=":material/error:")


def way_out(code: str, advice: str, *, can_accept: bool = False) -> str:
    """The engine's advice in the visitor's language; the page's own control where the engine names a command's."""
    if code not in CAN_BE_ACCEPTED:
        return told("advice", code, advice)[0]
    return say(f"accept.advice.{code}") if can_accept else say("accept.advice.elsewhere")


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
