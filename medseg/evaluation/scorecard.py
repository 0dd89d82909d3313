"""The scorecard: rows, what could not be matched, and the files it is saved as."""

from __future__ import annotations

import csv
import io
import platform
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg import __version__
from medseg.evaluation.arrays import OrganScore, opposite
from medseg.evaluation.metrics import Figures
from medseg.evaluation.policy import Settings
from medseg.evaluation.summary import RESAMPLES, SEED, summarise
from medseg.imaging.emit import emit_json, emit_text

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = "medseg.scores/1"
FIGURE_COLUMNS = ("dice", "surface_dice", "hd95_mm", "hd95_penalised_mm", "reference_ml", "prediction_ml")
DERIVED_COLUMNS = ("volume_error_ml", "volume_error_percent")


@dataclass(frozen=True)
class Scorecard:
    """Scores of many cases.

    Attributes:
        rows: one for each case and known organ.
        organs: in the order of the references' label table.
        cases: every case that has a reference.
        settings: tolerances, contoured windows, policy.
        references_without_prediction: cases whose organs are all misses.
        predictions_without_reference: cases that could not be scored.
        notes: what a reader should know about names and values.
        patients: whose each case is; where empty, every case is a patient.
    """

    rows: tuple[OrganScore, ...]
    organs: tuple[str, ...]
    cases: tuple[str, ...]
    settings: Settings
    references_without_prediction: tuple[str, ...] = ()
    predictions_without_reference: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Figures per organ (`organs`) and over all (`overall`)."""
        return summarise(self.rows, self.organs, self.cases, self.settings, self.patients)

    @property
    def left_right_swapped(self) -> tuple[str, ...]:
        """'CASE PAIR' for every pair of organs that was found on the wrong side."""
        found = Counter(f"{row.case} {_pair_name(row.organ)}" for row in self.rows if row.swapped)
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """The content of scores.json."""
        return {
            "schema": SCHEMA,
            "cases": len(self.cases),
            "overall": self.summary["overall"],
            "organs": self.summary["organs"],
            "left_right_swaps": len(self.left_right_swapped),
            "left_right_swapped": list(self.left_right_swapped),
            "references_without_prediction": list(self.references_without_prediction),
            "predictions_without_reference": list(self.predictions_without_reference),
            "notes": list(self.notes),
            "settings": self.settings.to_dict(),
            "policy": self.settings.policy.describe(),
            "definitions": _DEFINITIONS,
            "bootstrap": {
                "unit": "patient",
                "patients": len(set(self.patients or self.cases)),
                "resamples": RESAMPLES,
                "seed": SEED,
                "interval": "percentile, 95 %",
            },
            "versions": _versions(),
        }

    def to_csv(self) -> str:
        """The content of scores.csv: a row per case and known organ; an undefined figure is an empty field."""
        text = io.StringIO()
        records = [self._record(row) for row in self.rows]
        writer = csv.DictWriter(text, fieldnames=_columns(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()

    def _record(self, row: OrganScore) -> dict[str, object]:
        record: dict[str, object] = {
            "case": row.case,
            "organ": row.organ,
            "scope": self.settings.scope_of(row.organ),
            "outcome": str(row.figures.outcome),
            "predicted_case": _yes(row.handed_in),
            "left_right_swap": _yes(row.swapped),
            "tolerance_mm": row.tolerance_mm,
        }
        record |= {name: _cell(row.figures, name) for name in FIGURE_COLUMNS + DERIVED_COLUMNS}
        record["plain_outcome"] = str(row.plain.outcome)
        return record | {f"plain_{name}": _cell(row.plain, name) for name in FIGURE_COLUMNS}

    def save(self, out: Path) -> Path:
        """Write scores.csv, scores.json and plot.png into the folder `out`.

        Raises:
            OutputError: a file could not be written and verified.
        """
        from medseg.evaluation.report import save_plot

        emit_text(out / "scores.csv", self.to_csv())
        emit_json(out / "scores.json", self.to_dict())
        save_plot(self, out / "plot.png")
        return out

    def table(self) -> Table:
        """The summary as a rich table for the terminal."""
        from medseg.evaluation.report import summary_table

        return summary_table(self)


_DEFINITIONS = {
    "dice": "2·|P∩R| / (|P|+|R|)",
    "surface_dice": "share of both surfaces, by area, within tolerance_mm of the other; MONAI, subvoxel elements",
    "hd95_mm": "larger of the two directed 95th percentiles of the distance between surface voxels; MONAI",
    "overall": "mean of the organs' means",
    "scope": "the part of the scan that an organ is scored in; `plain` gives the whole scan beside it",
    "n": "cases that enter the mean; unknown: cases in which the organ was not contoured",
    "left_right_swaps": "pairs *_left/*_right where the overlap with the opposite organ is larger than with its own",
}


def _columns() -> list[str]:
    head = ["case", "organ", "scope", "outcome", "predicted_case", "left_right_swap", "tolerance_mm"]
    return [*head, *FIGURE_COLUMNS, *DERIVED_COLUMNS, "plain_outcome", *(f"plain_{name}" for name in FIGURE_COLUMNS)]


def _cell(figures: Figures, name: str) -> object:
    value = getattr(figures, name)
    return "" if value is None else round(value, 6)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _pair_name(organ: str) -> str:
    return organ.rsplit("_", 1)[0] if opposite(organ) else organ


def _versions() -> dict[str, str]:
    return {"medseg": __version__, "python": platform.python_version()} | {
        name: version(name) for name in ("monai", "torch", "numpy", "nibabel")
    }
