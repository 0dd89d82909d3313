"""The name of a scan: that of its file or folder, never anything from its header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from medseg.errors import showable

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".zip", ".gz")


def scan_name(path: Path) -> str:
    """`path`'s last part without the extension of a scan, as text; a folder keeps its dots."""
    name = showable(path.name or path.resolve().name or "scan")
    if path.is_dir():
        return name
    for extension in EXTENSIONS:
        if name.lower().endswith(extension) and len(name) > len(extension):
            return name[: -len(extension)]
    return name


def printable(name: str, longest: int = 80) -> str:
    """A name from outside, fit to be shown: no control or direction marks, and not endless."""
    shown = "".join(c if c.isprintable() else "?" for c in name)
    return shown if len(shown) <= longest else f"...{shown[-longest:]}"


def stray_sibling(others: Iterable[str], slices: Iterable[str]) -> str | None:
    """The first of `others` that is named like the slices but for its digits: a slice that is none any more.

    Among files without extension a damaged one at the end of a series would otherwise be taken for something else.
    """
    known = {_pattern(name) for name in slices}
    return next((name for name in others if _pattern(name) in known), None)


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name.replace("\\", "/").rsplit("/", 1)[-1].lower())
