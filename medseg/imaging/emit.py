"""The writing door: a file that is visible is a file that is finished.

Every file goes to a temporary name in the same folder, is flushed to the disk, read back
and compared, and only then renamed into place. A full disk, a kill or a lost permission
leaves the previous file, or none.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from medseg.errors import OutputError


def make_folder(path: Path) -> Path:
    """Make a folder for files to come, so that one that takes none is known before they are computed.

    Raises:
        OutputError: it cannot be made or written into.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OutputError(f"Nothing can be written into {path}: {error.strerror or error}.") from error


def emit(path: Path, write: Callable[[Path], object], check: Callable[[Path], None] | None = None) -> Path:
    """Let `write(temporary)` make a file, verify it, and rename it to `path`.

    Args:
        path: where the file is to appear; parent folders are made.
        write: writes the whole file to the path that it is given.
        check: reads the temporary file back and raises when it is not what was meant.

    Raises:
        OutputError: it could not be written completely; `path` is as it was before.
    """
    temporary = _reserve(path)
    try:
        write(temporary)
        _flush(temporary)
        if check is not None:
            check(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _reserve(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".part-", suffix=_suffix(path), dir=path.parent)
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}.") from error
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())
    return Path(name)


def sweep_parts(path: Path) -> None:
    """Remove what killed processes left of `path`: only where no other process writes it."""
    for left in path.parent.glob(f".part-*{glob.escape(_suffix(path))}"):
        with suppress(OSError):
            left.unlink()


def _suffix(path: Path) -> str:
    # The whole name stays at the end: writers choose a format by the extension.
    return f"-{path.name}"[-100:]


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def emit_bytes(path: Path, content: bytes) -> Path:
    """Write bytes, verified by reading back."""

    def check(temporary: Path) -> None:
        if temporary.read_bytes() != content:
            raise OutputError(f"{path} read back differently from what was written.")

    return emit(path, lambda temporary: temporary.write_bytes(content), check)


def emit_text(path: Path, text: str) -> Path:
    """Write text as UTF-8, verified by reading back; what UTF-8 cannot hold is escaped."""
    return emit_bytes(path, text.encode("utf-8", "backslashreplace"))


def emit_json(path: Path, value: Any) -> Path:
    """Write JSON with sorted structure kept as given, two spaces, final newline."""
    return emit_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
