"""Who knows whom inside the page: streamlit where things are drawn, medseg where work is handed over."""

from __future__ import annotations

import ast
from pathlib import Path

import app

ROOT = Path(app.__file__).parent
DRAWN = ("views/", "widgets/")
SPEAK_TO_MEDSEG = {
    "archives.py",
    "batches.py",
    "catalogue.py",
    "downloads.py",
    "entries.py",
    "errands.py",
    "folders.py",
    "imports.py",
    "language.py",
    "references.py",
    "services.py",
    "slices.py",
    "text/__init__.py",
    "uploads.py",
}


def importers(package: str) -> set[str]:
    """Files of the page that import a package."""
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == package for name in names):
                found.add(path.relative_to(ROOT).as_posix())
    return found


def test_what_is_drawn_does_not_speak_to_medseg() -> None:
    assert {path for path in importers("medseg") if not path.startswith("work/")} == SPEAK_TO_MEDSEG


def test_only_pages_and_their_frame_know_streamlit() -> None:
    frame = {path for path in importers("streamlit") if not path.startswith(DRAWN)}
    assert frame == {"main.py", "server.py", "desk.py", "gate.py", "language.py", "open.py"}


def test_torch_is_loaded_in_processes_of_their_own() -> None:
    assert importers("torch") == set()


def test_no_folder_is_served_past_the_frame() -> None:
    """Streamlit runs what lies in a folder `pages` beside the main file without it, and so without its gate."""
    assert not ROOT.joinpath("pages").exists()
