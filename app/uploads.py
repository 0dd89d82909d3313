"""What browsers hand in, copied to the disk under names of our own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from medseg.imaging.emit import emit

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".zip", ".dcm")


class Upload(Protocol):
    """What a browser hands in: a name that is never used as a path, and bytes to read."""

    name: str

    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...


def size_of(upload: Upload) -> int:
    """Bytes of what was handed in."""
    upload.seek(0, 2)
    return int(upload.tell())


def strip_ending(name: str) -> str:
    """A file's name without folders and extension, for the eye only."""
    name = Path(name.replace("\\", "/")).name
    ending = _ending(name)
    return name[: -len(ending)] if ending else name


def _ending(name: str) -> str:
    return next((ending for ending in _ENDINGS if name.lower().endswith(ending)), "")


def store(uploads: Sequence[Upload], folder: Path) -> Path:
    """One file under `scan` and its own ending; several as the files of one DICOM series."""
    if len(uploads) == 1:
        return _copy(uploads[0], folder / f"scan{_ending(uploads[0].name)}")
    for number, upload in enumerate(uploads):
        _copy(upload, folder / f"{number:05d}{_ending(upload.name)}")
    return folder


def _copy(upload: Upload, path: Path) -> Path:
    def write(temporary: Path) -> None:
        upload.seek(0)
        with temporary.open("wb") as file:
            shutil.copyfileobj(upload, file, 1 << 20)

    return emit(path, write)
