"""A result folder and its scan as `Segmentation` again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medseg.errors import DataError
from medseg.imaging.nifti import read_label_map
from medseg.imaging.volume import Finding, Volume
from medseg.labels import LabelTable
from medseg.results.measure import Measurement
from medseg.results.segmentation import Segmentation


def load_result(folder: Path, volume: Volume) -> Segmentation:
    """Read what `Segmentation.save` wrote.

    Args:
        folder: the result.
        volume: the scan that was segmented.

    Raises:
        DataError: the folder holds no complete result, or that of another scan.
        InputError: its mask cannot be read.
    """
    labels, rows, run = (_json(folder / name) for name in ("labels.json", "measurements.json", "run.json"))
    mask, geometry = read_label_map(folder / "mask.nii.gz")
    if not geometry.matches(volume.geometry):
        raise DataError(f"{folder.name}: the result lies on another grid than {volume.name}.")
    findings = tuple(Finding(f["code"], f["message"], f["severity"]) for f in run.pop("findings", []))
    measurements = tuple(Measurement(**row | {"extent_mm": tuple(row["extent_mm"])}) for row in rows)
    return Segmentation(mask, LabelTable.from_json(labels["labels"]), volume, measurements, findings, run)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.parent.name} holds no complete result ({path.name}).") from error
