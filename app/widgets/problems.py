"""Errors as advice: what happened, and what to do."""

from __future__ import annotations

import streamlit as st

from app.services import Problem


def show_problem(problem: Problem) -> None:
    """One red box: the sentence, and below it the way out."""
    st.error(f"{plain(problem.message)}\n\n{plain(problem.advice)}".strip(), icon=":material/error:")


def plain(text: str) -> str:
    """Text from files and names, shielded from being read as Markdown."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#+!|~<>$:" else sign for sign in text)
