"""Segmentation: the result of one study, and the files that it becomes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import OutputError
from medseg.imaging.emit import emit, emit_json, emit_text
from medseg.imaging.nifti import write_label_map, write_percent
from medseg.imaging.volume import Array, Finding, Volume
from medseg.labels import LabelTable
from medseg.results.measure import Measurement

COLUMNS = (
    "organ", "label", "volume_ml", "mean_hu", "sd_hu", "extent_right_mm", "extent_anterior_mm",
    "extent_superior_mm", "slices", "touches_edge", "mean_probability",
)  # fmt: skip

_PROBABILITY = "probability_{}.nii.gz"


@dataclass(frozen=True)
class Segmentation:
    """Named organs of one scan.

    Attributes:
        mask: uint8 on the scan's grid, 0 is background.
        labels: what the values mean.
        volume: the scan.
        measurements: a row per organ of the table.
        findings: what a reader should know, of the scan and of the result.
        run: versions, hashes, timings, memory.
        probabilities: uint8 in per cent on the scan's grid, by organ, of those that were asked for: as the network
            gives them, before islands were removed from the mask and anatomy was checked.
    """

    mask: Array
    labels: LabelTable
    volume: Volume
    measurements: tuple[Measurement, ...]
    findings: tuple[Finding, ...]
    run: dict[str, Any]
    probabilities: Mapping[str, Array] = field(default_factory=dict)

    def save(self, folder: str | Path) -> Path:
        """Write mask.nii.gz, labels.json, measurements.csv and .json, preview.png, run.json, and any probabilities.

        Every file appears only when it is complete and has been read back. run.json comes last,
        and one of an earlier result goes first: where it stands, the files beside it belong to it.

        Returns:
            The folder.

        Raises:
            OutputError: a file could not be written.
        """
        from medseg.results.preview import write_preview  # matplotlib takes a second; not at import

        out = Path(folder)
        _withdraw(out / "run.json")
        write_label_map(out / "mask.nii.gz", self.mask, self.volume.geometry)
        for earlier in out.glob(_PROBABILITY.format("*")):
            _withdraw(earlier)
        for organ, percent in self.probabilities.items():
            write_percent(out / _PROBABILITY.format(self.labels[organ].stem), percent, self.volume.geometry)
        emit_json(out / "labels.json", {"model": self.run.get("model", {}), "labels": self.labels.to_json()})
        emit_text(out / "measurements.csv", self.to_csv())
        emit_json(out / "measurements.json", [row.to_json() for row in self.measurements])
        emit(
            out / "preview.png",
            lambda path: write_preview(path, self.volume, self.mask, self.labels, self.measurements),
        )
        emit_json(out / "run.json", self.run | {"findings": [_finding(finding) for finding in self.findings]})
        return out

    def to_csv(self) -> str:
        """The measurements as CSV text."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.measurements:
            first = (row.organ, row.label, row.volume_ml, _blank(row.mean_hu), _blank(row.sd_hu))
            last = (row.slices, str(row.touches_edge).lower(), _blank(row.mean_probability))
            writer.writerow((*first, *row.extent_mm, *last))
        return text.getvalue()


def _withdraw(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} could not be replaced: {error.strerror or error}.") from error


def _blank(value: float | None) -> float | str:
    return "" if value is None else value


def _finding(finding: Finding) -> dict[str, str]:
    return {"code": finding.code, "message": finding.message, "severity": finding.severity}
