"""Which files a scan is read from: who asks whether it has changed has to look at all of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from medseg.imaging.headed import MAX_HEADER_BYTES
from medseg.imaging.sniff import sniff

_VOXELS = re.compile(rb"^\s*(?:data ?file\s*:|ElementDataFile\s*=)(.*)$", re.MULTILINE | re.IGNORECASE)


def own_files(path: Path) -> Iterator[Path]:
    """The file itself, or all files below a folder; none where there is nothing.

    Folders that cannot be listed are passed over: it is the reader who refuses them.
    """
    if os.path.isdir(path):
        yield from (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    elif os.path.exists(path):
        yield path


def companions(path: Path) -> list[Path]:
    """What is read with a file from the same folder: all slices beside a DICOM slice, the voxels of a header."""
    match _content(path):
        case "dicom":
            return [other for other in _neighbours(path) if _is_slice(other)]
        case "nrrd" | "mha":
            voxels = _voxels(path)
            return [other for other in _neighbours(path) if other.name == voxels]
        case _:
            return []


def stamp(path: Path) -> str:
    """Size in bytes and time of the last change in ns, each after a blank; '?' for what is not there."""
    try:
        about = path.stat()
    except OSError:
        return "?"
    return f" {about.st_size} {about.st_mtime_ns}"


def _content(path: Path) -> str:
    """As `sniff`; '' also for what is no file or cannot be opened."""
    try:
        return sniff(path) if path.is_file() else ""
    except OSError:
        return ""


def _neighbours(path: Path) -> list[Path]:
    try:
        return [other for other in path.parent.iterdir() if other.name != path.name]
    except OSError:  # a folder may be entered and yet not be listed: then the reader refuses it
        return []


def _is_slice(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and (path.suffix.lower() == ".dcm" or _content(path) == "dicom")


def _voxels(header: Path) -> str:
    """Name of the separate file of voxels, where the header names one."""
    with header.open("rb") as file:
        told = _VOXELS.search(file.read(MAX_HEADER_BYTES))
    return told[1].strip().decode("utf-8", "replace") if told else ""
