"""What this machine has found out about models: small notes in the user's cache folder.

A note may vanish or be damaged at any time; then it is found out again. $MEDSEG_CACHE names
the folder; else $XDG_CACHE_HOME/medseg, else ~/.cache/medseg.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from medseg.errors import OutputError
from medseg.imaging.emit import emit_bytes, emit_json

KEPT = 6  # large things of one kind


def cache_folder() -> Path:
    """The folder for what can be computed again."""
    own = os.environ.get("MEDSEG_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medseg"


def recall(kind: str, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The note that was written under exactly these facts; None where there is none or it cannot be read."""
    try:
        note = json.loads(_path(kind, facts).read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return None
    if not isinstance(note, dict) or note.get("facts") != _plain(facts) or not isinstance(note.get("note"), dict):
        return None
    found: dict[str, Any] = note["note"]
    return found


def remember(kind: str, facts: Mapping[str, Any], note: Mapping[str, Any]) -> None:
    """Write a note, readable by people. A cache that cannot be written is no error: it is found out again."""
    with suppress(OutputError, OSError, RuntimeError):
        emit_json(_path(kind, facts), {"facts": _plain(facts), "note": _plain(note)})


def recall_bytes(kind: str, facts: Mapping[str, Any]) -> bytes | None:
    """What was kept under exactly these facts, unaltered; None where there is none."""
    note = recall(kind, facts)
    try:
        content = _path(kind, facts, ".bin").read_bytes()
    except (OSError, RuntimeError):
        return None
    return content if note is not None and note.get("sha256") == hashlib.sha256(content).hexdigest() else None


def remember_bytes(kind: str, facts: Mapping[str, Any], content: bytes) -> None:
    """Keep something large; of each kind the latest few stay."""
    with suppress(OutputError, OSError, RuntimeError):
        emit_bytes(_path(kind, facts, ".bin"), content)
        remember(kind, facts, {"sha256": hashlib.sha256(content).hexdigest()})
        kept = sorted((cache_folder() / kind).glob("*.bin"), key=lambda path: path.stat().st_mtime)
        for old in kept[:-KEPT]:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)


def _path(kind: str, facts: Mapping[str, Any], suffix: str = ".json") -> Path:
    text = json.dumps(_plain(facts), sort_keys=True)
    return cache_folder() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{suffix}"


def _plain(value: Mapping[str, Any]) -> Any:
    # As JSON gives it back: tuples are lists.
    return json.loads(json.dumps(value))
