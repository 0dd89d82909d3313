"""`medseg models import` on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from medseg.errors import ConfigError
from medseg.models.importers.run import import_models
from medseg.models.store import load_model, shelves


def import_and_report(paths: Sequence[Path], out: Path | None, name: str, **options: Any) -> int:
    """Import, read the package back, and say what it is; returns the exit code.

    Raises:
        ConfigError: no folder was given, or no shelf is known.
    """
    if not paths:
        raise ConfigError("No model folder was given.", advice="medseg models import FOLDER --name NAME -o SHELF")
    folder = import_models(paths, _shelf(out), name, **options)
    card = load_model(folder).card
    organs = "; ".join(label.title.lower() for label in card.label_table)
    lines = [f"Model package: {folder}", f"Organs: {organs}", *(f"Note: {limit}" for limit in card.limits)]
    Console(soft_wrap=True).print("\n".join(lines), markup=False, highlight=False)
    return 0


def _shelf(out: Path | None) -> Path:
    own = shelves()[:-1]  # the last one ships with medseg
    if out is None and not own:
        raise ConfigError("No shelf is known for the package.", advice="Give one with -o, or set MEDSEG_MODELS.")
    return out or own[0]
