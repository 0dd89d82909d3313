"""Names of result folders: the input's name without extension, safe, and unique."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medseg.errors import showable
from medseg.imaging.naming import scan_name

# What Windows shares refuse, and the manifests that lie beside the results.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|manifest\.(csv|json)", re.IGNORECASE)
_LONGEST_BYTES = 160


def study_names(
    paths: Sequence[Path], *, known: Mapping[Path, str] | None = None, taken: Collection[str] = ()
) -> list[str]:
    """A name for each study's result folder, in the order of `paths`.

    The input's name without its extension; where names collide, `parent__name`, and with more parents while they
    still do; neighbours that differ by the extension alone keep it. Letters of all scripts stay, what a file
    system or a spreadsheet may trip over becomes '_'. No two names differ in case alone, none is hidden or contains
    a separator.

    Args:
        paths: different studies.
        known: names that were given before (by absolute path) and are kept.
        taken: names that no other study may get.
    """
    known = known or {}
    whole = [Path(os.path.abspath(path)) for path in paths]
    fixed = {path: known[path] for path in whole if path in known}
    used = {name.casefold() for name in (*known.values(), *taken)}
    fresh = _lengthened([path for path in whole if path not in fixed], used)
    return [fixed.get(path) or fresh[path] for path in whole]


def _lengthened(paths: Collection[Path], taken: Collection[str]) -> dict[Path, str]:
    """Names with as many parents as tell each study from the others."""
    depth = dict.fromkeys(paths, 0)
    stems = _stems(paths)
    while True:
        names = {path: safe_name("__".join([*_parents(path, depth[path]), stems[path]])) for path in paths}
        uses = Counter(name.casefold() for name in names.values())
        clashing = [path for path in paths if uses[_key(names, path)] > 1 or _key(names, path) in taken]
        longer = [path for path in clashing if depth[path] < len(path.parts) - 2]
        if not longer:
            return _numbered(names, taken)
        for path in longer:
            depth[path] += 1


def _key(names: Mapping[Path, str], path: Path) -> str:
    return names[path].casefold()


def _numbered(names: Mapping[Path, str], taken: Collection[str]) -> dict[Path, str]:
    """The last resort for paths whose differences are lost in safe names: `name`, `name-2`, ..."""
    used = set(taken)
    final: dict[Path, str] = {}
    for path, name in names.items():
        number, candidate = 1, name
        while candidate.casefold() in used:
            number += 1
            candidate = f"{name}-{number}"
        used.add(candidate.casefold())
        final[path] = candidate
    return final


def _stems(paths: Collection[Path]) -> dict[Path, str]:
    """Names without extension; with it where a neighbour in the same folder differs by nothing else."""
    short = {path: scan_name(path) for path in paths}
    uses = Counter((path.parent, name.casefold()) for path, name in short.items())
    return {path: name if uses[path.parent, name.casefold()] == 1 else path.name for path, name in short.items()}


def _parents(path: Path, depth: int) -> tuple[str, ...]:
    return path.parts[-1 - depth : -1] if depth else ()


def safe_name(text: str) -> str:
    """`text` as a visible file name of at most 160 bytes that is none of the reserved ones."""
    readable = unicodedata.normalize("NFC", showable(text))
    name = re.sub(r"[^\w.+-]", "_", readable).strip(".").lstrip("-+") or "study"
    if len(name.encode()) > _LONGEST_BYTES:
        # Half a name may be the same as another half: the digest keeps them apart.
        digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
        name = name.encode()[: _LONGEST_BYTES - 9].decode(errors="ignore") + "-" + digest
    return f"{name}_" if _RESERVED.fullmatch(name) else name
