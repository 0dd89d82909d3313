"""Which studies lie in a folder, and what their results are called."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from medseg.imaging.sniff import HEAD_BYTES, sniff_bytes
from medseg.jobs.folders import RESULT_MARKS

# A file that calls itself a scan is one, so that a damaged one fails by name instead of being overlooked.
_SCANS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip")
_SLICES = (".dcm", ".ima")
_JUNK = {"__macosx", "thumbs.db", "desktop.ini", "dicomdir", "lost+found"}

# DICOM objects that are no images: RT structures, plans and doses, segmentations, reports, presentation states.
_ANNOTATION = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(?:481\.[2-9]|66|88|11|104)[.\d]*")

Report = Callable[[Path, str], None]


def find_studies(root: Path, *, exclude: Iterable[Path] = (), report: Report | None = None) -> list[Path]:
    """All studies under a folder, sorted by path.

    A study is a NIfTI, NRRD, MHA or zip file, or a folder that itself holds DICOM images. A file is its own study.
    Where folders are nested, each one that holds DICOM images is a study; a series that an export has
    split over several folders has to be given by its parent folder instead of being looked for.

    Args:
        root: folder to look through, or one study.
        exclude: folders that are not entered (the output folder of a batch).
        report: called with path and reason for everything that is skipped, but for hidden and junk files.
    """
    if not root.is_dir():
        return [root]
    shut = frozenset(_real(path) for path in exclude)
    found = _Search(_real(root), shut, report or _quiet).folder(root)
    return _without_doubles(sorted(found))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike resolve(), it bears loops of links


def _quiet(_: Path, __: str) -> None: ...


class _Search:
    """One walk through a tree; remembers where the tree ends and whom to tell."""

    def __init__(self, root: Path, shut: frozenset[Path], report: Report) -> None:
        self.root, self.shut, self.report = root, shut, report

    def folder(self, folder: Path) -> Iterator[Path]:
        entries = [entry for entry in self._list(folder) if not _is_junk(entry.name)]
        names = {entry.name for entry in entries}
        if names >= RESULT_MARKS:
            self.report(folder, "is a result of an earlier run.")
            return
        usable = [entry for entry in entries if self._is_usable(entry)]
        yield from self._files([Path(entry.path) for entry in usable if entry.is_file()], folder)
        for entry in usable:
            if entry.is_dir() and _real(Path(entry.path)) not in self.shut:
                yield from self.folder(Path(entry.path))

    def _list(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.report(folder, f"cannot be opened: {error.strerror}.")
            return []

    def _is_usable(self, entry: os.DirEntry[str]) -> bool:
        reason = self._objection(entry)
        if reason:
            self.report(Path(entry.path), reason)
        return not reason

    def _objection(self, entry: os.DirEntry[str]) -> str:
        if entry.is_symlink():
            target = _real(Path(entry.path))
            if not target.is_relative_to(self.root):
                return "is a link that leads out of the folder."
            if not target.exists():
                return "is a link that leads nowhere."
            if target.is_dir():
                return "is a link to a folder of the same tree."
        if not (entry.is_file() or entry.is_dir()):
            return f"is a {_special(entry)}, not a file."
        return ""

    def _files(self, files: Sequence[Path], folder: Path) -> Iterator[Path]:
        kinds = {path: self._kind(path) for path in files if not path.name.lower().endswith(_SCANS)}
        yield from (path for path in files if path not in kinds or kinds[path] == "scan")
        found = set(kinds.values())
        if "image" in found:
            yield folder
            return
        if "annotation" in found:
            self.report(folder, "holds DICOM without images (structures, segmentations or reports).")
        for path in (path for path, kind in kinds.items() if kind == "other"):
            self.report(path, "is not a scan.")

    def _kind(self, path: Path) -> str:
        """'scan' (a study by itself), 'image' or 'annotation' (DICOM), 'other', '' (cannot be opened)."""
        head = self._head(path)
        if head is None:
            return ""
        content = sniff_bytes(head)
        if content == "dicom":
            return "annotation" if _ANNOTATION.search(head) else "image"
        if content in {"nifti", "nrrd", "mha"} or (content == "zip" and not path.suffix):
            return "scan"
        return "image" if path.name.lower().endswith(_SLICES) else "other"

    def _head(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                return file.read(HEAD_BYTES)
        except OSError as error:
            self.report(path, f"cannot be opened: {error.strerror}.")
            return None


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _special(entry: os.DirEntry[str]) -> str:
    mode = entry.stat().st_mode
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def _without_doubles(paths: Iterable[Path]) -> list[Path]:
    """One path for each file; where links point to a file that was found as well, the file itself."""
    chosen: dict[Path, Path] = {}
    for path in sorted(paths, key=lambda path: path.is_symlink()):
        chosen.setdefault(_real(path), path)
    return sorted(chosen.values())
