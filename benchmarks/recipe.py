"""What decides a training, kept beside what came of it: another recipe or other data never get the old result.

Only what both sides know is compared: a result that is older than a part of the recipe is gone on with, and gets it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from medseg.imaging.emit import emit_json, sha256_file
from medseg.training.cases import CaseFiles, Dataset
from medseg.training.config import TrainConfig

RECIPE = "recipe.json"
_PLACES = {"index", "cache", "card", "tracking", "small_batch", "version"}
_HABITS = ("workers", "log_steps", "checkpoint_minutes", "device")
_SHOWN, _CHARACTERS = 3, 48


def recipe_of(config: TrainConfig, *varied: str) -> dict[str, Any]:
    """What decides a training, but for its data (see `data_of`), all places, and the loop's settings in `varied`."""
    whole = config.model_dump(mode="json", exclude=_PLACES)
    loop = {key: value for key, value in whole["loop"].items() if key not in (*varied, *_HABITS)}
    return whole | {"loop": loop}


def data_of(dataset: Dataset) -> dict[str, Any]:
    """Label values, and of each case its split and a digest of its bytes and its contoured organs, wherever it lies."""
    return {"labels": dataset.labels, "cases": {case.id: f"{case.split} {_digest(case)}" for case in dataset.cases}}


def _digest(case: CaseFiles) -> str:
    parts = [_sha256(case.ct.resolve()), _sha256(case.label.resolve()), *sorted(case.contoured)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


@cache
def _sha256(file: Path) -> str:
    return sha256_file(file)


def keep_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Write the recipe of what is made in a folder, where it is the one of what was made there before.

    Raises:
        SystemExit: it is another one.
        OutputError: it could not be written.
    """
    file = folder / RECIPE
    before = json.loads(file.read_text()) if file.is_file() else {}
    emit_json(file, agreed(folder, before, recipe))


def agreed(place: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What stood at `place` before, joined by what is wanted now; the keys that both have must hold the same.

    Raises:
        SystemExit: they do not.
    """
    now = json.loads(json.dumps(now))
    lines = [line for key in now if key in before for line in _differences(key, before[key], now[key])]
    if lines:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise SystemExit(
            f"{place} was made with another recipe or other data ({'; '.join(lines[:_SHOWN])}{more}): "
            "move it away, or train with those."
        )
    return {**before, **now}


def _differences(name: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = {**before, **now}
        return [line for key in keys for line in _differences(f"{name}.{key}", before.get(key), now.get(key))]
    return [] if before == now else [f"{name}: {_short(before)} there, {_short(now)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}..."
