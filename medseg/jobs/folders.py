"""Result folders that appear only when they are complete, and replace nothing that is not theirs."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from medseg.errors import OutputError

PART = ".medseg-part-"
# A folder with these two in it is a result, whatever a user has added to it.
RESULT_MARKS = frozenset({"mask.nii.gz", "run.json"})


def new_part(out: Path) -> Path:
    """An empty hidden folder beside `out`, in which the result of `out` is to be written.

    Raises:
        OutputError: it could not be made.
    """
    with _guarded(out):
        part = out.with_name(f"{PART}{secrets.token_hex(8)}")
        part.mkdir(parents=True)
        return part


def publish(part: Path, out: Path, replaceable: Collection[str] = ()) -> None:
    """Rename the finished `part` to `out`.

    An earlier result at `out` is removed when it holds nothing but `replaceable` names, and otherwise
    kept beside the new one as `NAME.previous-1`, `-2` ...

    Raises:
        OutputError: no right to do so, or `out` is something else; it is as it was.
    """
    check_place(out, replaceable)
    with _guarded(out):
        _replace(part, out, replaceable)


def check_place(out: Path, replaceable: Collection[str] = ()) -> None:
    """Refuse a place for a result that holds something else than an earlier result.

    Raises:
        OutputError: `out` is a file, a link, or a folder with other contents.
    """
    if os.path.lexists(out) and not is_result(out, replaceable):
        raise OutputError(f"{out} exists and is no result of medseg.", advice="Choose another folder, or move it away.")


def is_result(out: Path, replaceable: Collection[str] = ()) -> bool:
    """Whether `out` is a folder that holds a result, or nothing but `replaceable` names."""
    if out.is_symlink() or not out.is_dir():
        return False
    names = set(os.listdir(out))
    return names >= RESULT_MARKS or names <= set(replaceable)


def set_aside(out: Path) -> Path | None:
    """Rename a result folder that no longer holds true to `NAME.previous-N`; None if there was none.

    Raises:
        OutputError: it could not be renamed.
    """
    with _guarded(out):
        return _set_aside(out) if os.path.lexists(out) else None


def discard(part: Path) -> None:
    """Remove a part that is not wanted any more; what cannot be removed stays hidden."""
    shutil.rmtree(part, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed runs left in `folder`. Only for the holder of its lock."""
    for part in folder.glob(f"{PART}*"):
        discard(part)
    for file in folder.glob(".part-*-manifest.*"):  # what `emit` was writing
        file.unlink(missing_ok=True)


def _replace(part: Path, out: Path, replaceable: Collection[str]) -> None:
    trash = None
    if os.path.lexists(out):
        known = set(os.listdir(out)) <= set(replaceable)
        trash = _move(out, new_part(out) / "old") if known else None
        if not known:
            _set_aside(out)
    os.rename(part, out)
    if trash is not None:
        discard(trash.parent)


def _set_aside(out: Path) -> Path:
    number = 1
    while os.path.lexists(out.with_name(f"{out.name}.previous-{number}")):
        number += 1
    return _move(out, out.with_name(f"{out.name}.previous-{number}"))


def _move(old: Path, new: Path) -> Path:
    os.rename(old, new)
    return new


@contextlib.contextmanager
def _guarded(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{out} could not be written: {error.strerror or error}.") from error
