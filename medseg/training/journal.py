"""The log of a run: one JSON object a line, appended as it happens, cut back to the checkpoint when a run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import OutputError
from medseg.imaging.emit import emit_text

LOG = "log.jsonl"


@dataclass(frozen=True)
class StepRecord:
    """What one optimiser step was like; `waited_s` of `seconds` went by without a batch.

    `gradient_norm` is None where an overflow made the step be skipped.
    """

    step: int
    loss: float
    parts: dict[str, float]
    gradient_norm: float | None
    seconds: float
    waited_s: float


def summarise(records: Sequence[StepRecord]) -> dict[str, Any]:
    """Means over some steps, for an entry of the log."""
    seconds = sum(record.seconds for record in records)
    return {
        "step": records[-1].step,
        "loss": _mean([record.loss for record in records]),
        "parts": {name: _mean([r.parts[name] for r in records if name in r.parts]) for name in records[-1].parts},
        "gradient_norm": _mean([r.gradient_norm for r in records if r.gradient_norm is not None]),
        "seconds_per_step": seconds / len(records),
        "waiting_share": sum(record.waited_s for record in records) / max(seconds, 1e-9),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


class Journal:
    """Entries of a run, each with its `step`; `seconds` in them is the time that steps have taken so far.

    A log that cannot be written (a full disk) stops no training: its lines wait until they can.

    Args:
        folder: of the run; None keeps the entries in memory alone (ranks that do not write).
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / LOG
        self._behind = False
        self.entries: list[dict[str, Any]] = []

    @property
    def seconds(self) -> float:
        """Time of all steps so far, as last noted."""
        return next((float(entry["seconds"]) for entry in reversed(self.entries) if "seconds" in entry), 0.0)

    def reopen(self, step: int) -> None:
        """Take up the file again, without what came after `step`: those steps are taken anew."""
        if self._path is not None:
            self.entries = [entry for entry in read_journal(self._path.parent) if entry["step"] <= step]
            self._behind = True

    def note(self, entry: dict[str, Any]) -> None:
        """Append one entry."""
        self.entries.append(entry)
        if self._path is None:
            return
        try:
            if self._behind or not self._path.is_file():
                self._write_anew()
            else:
                _append(self._path, _line(entry))
            self._behind = False
        except OSError:
            self._behind = True

    def _write_anew(self) -> None:
        assert self._path is not None
        try:
            emit_text(self._path, "".join(map(_line, self.entries)))
        except OutputError as error:
            raise OSError(error.message) from error


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, allow_nan=False) + "\n"


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log; a last line that was cut off by a kill is left out."""
    return read_lines(folder / LOG)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects, one a line, up to the first that is none."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries
