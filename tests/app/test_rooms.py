"""Who knows whom inside the page: one file speaks to medseg, and it knows no streamlit."""

from __future__ import annotations

import ast
from pathlib import Path

import app

ROOT = Path(app.__file__).parent


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


def test_services_alone_speaks_to_medseg() -> None:
    assert importers("medseg") == {"services.py", "folders.py"}


def test_what_the_job_process_imports_knows_no_streamlit() -> None:
    drawn = {path for path in importers("streamlit") if not path.startswith(("pages/", "widgets/"))}
    assert drawn == {"main.py", "desk.py", "gate.py"}
