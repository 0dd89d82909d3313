"""The manifest of a batch: what became of every study, in JSON (the truth) and CSV (for people)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from medseg import __version__
from medseg.errors import OutputError, showable
from medseg.imaging.emit import emit_json, emit_text, sha256_file
from medseg.imaging.scan_files import companions, own_files, stamp

JSON, CSV = "manifest.json", "manifest.csv"
MASK = "mask.nii.gz"
_HIDDEN_IN_CSV = {"files", "part"}

Status = Literal["done", "failed", "skipped-unchanged"]


@dataclass(frozen=True)
class ManifestRow:
    """One study.

    Attributes:
        study: name of its result folder.
        path: the input, absolute.
        status: 'done', 'failed', or 'skipped-unchanged' (finished by an earlier run and still whole).
        error: class of the error, e.g. 'MissingSlicesError'; empty without one, as message and advice.
        message: what happened; names the input.
        advice: the way out.
        seconds: computing time.
        series: the series that was asked for; empty for none.
        fingerprint: digest of the names, sizes and times of the input's files.
        model: name of the model.
        model_sha256: digest of the model.
        way: what else was asked for and the result depends on, see `Options.way`; empty where nothing was.
        formats: further formats that were asked for, separated by commas.
        version: version of medseg that computed it.
        mask_sha256: digest of the mask.
        findings: what a reader of the result should know.
        files: name and size in bytes of every file of the result.
        part: name of the complete folder that is about to be renamed to `study`; empty afterwards.
        verdict: of a finished study: 'segmented', or 'empty' with its reason among the findings.
        kept: name of the folder that keeps the earlier result, where that had been changed; else empty.
    """

    study: str
    path: str
    status: Status
    error: str = ""
    message: str = ""
    advice: str = ""
    seconds: float = 0.0
    series: str = ""
    fingerprint: str = ""
    model: str = ""
    model_sha256: str = ""
    way: str = ""
    formats: str = ""
    version: str = __version__
    mask_sha256: str = ""
    findings: tuple[str, ...] = ()
    files: dict[str, int] = field(default_factory=dict)
    part: str = ""
    verdict: str = ""
    kept: str = ""

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self.status != "failed"

    def same_task(self, other: ManifestRow) -> bool:
        """Whether both ask the same of the same: input, series, model, way and program."""
        return self._task() == other._task()

    def _task(self) -> tuple[str, ...]:
        wanted = (self.series, self.model, self.model_sha256, self.way, self.formats)
        return self.fingerprint, *wanted, self.version

    def is_whole(self, folder: Path) -> bool:
        """Whether the result in `folder` is all there and its mask is the one that was written."""
        try:
            sizes = all((folder / name).stat().st_size == size for name, size in self.files.items())
            return sizes and sha256_file(folder / MASK) == self.mask_sha256
        except OSError:
            return False

    def is_touched(self, folder: Path) -> bool:
        """Whether somebody has changed or added files in the result; what is lost or empty is nobody's work."""
        try:
            sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
            changed = any(size != self.files.get(name) for name, size in sizes.items() if size)
            return changed or (sizes.get(MASK, 0) > 0 and sha256_file(folder / MASK) != self.mask_sha256)
        except OSError:
            return False


class Manifest:
    """The rows of one output folder; every change is on the disk before it returns. Thread-safe.

    Args:
        out: the output folder; rows of earlier batches are read from it.

    Raises:
        OutputError: the manifest in it is damaged, or must not be read.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._lock = threading.Lock()
        self._rows = {row.study: row for row in read_manifest(out)}

    def __iter__(self) -> Iterator[ManifestRow]:
        return iter(sorted(self._rows.values(), key=lambda row: row.study))

    def __getitem__(self, study: str) -> ManifestRow:
        return self._rows[study]

    def get(self, study: str) -> ManifestRow | None:
        """The row of a study, or None."""
        return self._rows.get(study)

    def put(self, rows: Iterable[ManifestRow]) -> None:
        """Add or replace rows and write both files."""
        with self._lock:
            self._rows.update({row.study: row for row in rows})
            shown = [asdict(row) for row in self]
            head = {"program": f"medseg {__version__}", "updated": datetime.now(UTC).isoformat(timespec="seconds")}
            emit_json(self.out / JSON, {**head, "studies": shown})
            emit_text(self.out / CSV, _csv(shown))


def read_manifest(out: Path) -> list[ManifestRow]:
    """The rows of an output folder; none if it has no manifest.

    Raises:
        OutputError: it is damaged, or must not be read.
    """
    path = out / JSON
    try:
        if not path.exists():
            return []
        return [_row(values) for values in json.loads(path.read_text(encoding="utf-8"))["studies"]]
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError) as error:
        advice = "Move it away; the studies are then computed again."
        raise OutputError(f"{path} is damaged: {error}.", advice=advice) from error


def _row(values: dict[str, Any]) -> ManifestRow:
    return ManifestRow(**{**values, "findings": tuple(values["findings"])})


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = [column.name for column in fields(ManifestRow) if column.name not in _HIDDEN_IN_CSV]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "findings": " | ".join(row["findings"]), "seconds": f"{row['seconds']:.1f}"})
    return text.getvalue()


def fingerprint(source: Path) -> str:
    """Digest of the names, sizes and modification times of the files that make up an input; '' for none.

    Quick and therefore blind to a change that keeps size and time. One DICOM slice counts with all slices beside it,
    a detached header with the file of its voxels.
    """
    real = Path(os.path.realpath(source))
    own = sorted(_line(path, real.parent) for path in own_files(real))
    # Behind the file itself: two slices of one folder may belong to different series.
    lines = own + sorted(_line(path, path.parent) for path in companions(source))
    return hashlib.sha256(b"\n".join(lines)).hexdigest() if lines else ""


def _line(path: Path, base: Path) -> bytes:
    return os.fsencode(path.relative_to(base)) + stamp(path).encode()


def shown_path(path: Path) -> str:
    """An absolute path as text, links kept; bytes that are no UTF-8 are shown escaped."""
    return showable(os.path.abspath(path))


def identity(path: Path) -> str:
    """What two ways to the same file have in common: its path without links, as text."""
    return shown_path(Path(os.path.realpath(path)))


def inventory(folder: Path) -> dict[str, int]:
    """Name and size of every file in a result folder.

    Raises:
        OutputError: it holds no mask.
    """
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    if MASK not in files:
        raise OutputError(f"The result holds no {MASK}.", advice="This is a fault of the program: please report it.")
    return files
