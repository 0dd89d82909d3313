"""A result folder and its scan as `Segmentation` again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medseg.errors import DataError, ScanChangedError
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
        DataError: the folder holds no complete result, or one on another grid.
        ScanChangedError: the result is of other bytes than the scan's.
        InputError: its mask cannot be read.
    """
    labels, rows, run = (_json(folder / name) for name in ("labels.json", "measurements.json", "run.json"))
    _check_same_scan(folder, run, volume)
    mask, geometry = read_label_map(folder / "mask.nii.gz")
    if not geometry.matches(volume.geometry):
        raise DataError(f"{folder.name}: the result lies on another grid than {volume.name}.")
    findings = tuple(Finding(f["code"], f["message"], f["severity"]) for f in run.pop("findings", []))
    measurements = tuple(Measurement(**row | {"extent_mm": tuple(row["extent_mm"])}) for row in rows)
    return Segmentation(mask, LabelTable.from_json(labels["labels"]), volume, measurements, findings, run)


def _check_same_scan(folder: Path, run: dict[str, Any], volume: Volume) -> None:
    # A scan that was made in memory has no digest: there the grid alone can tell.
    segmented = run.get("input", {}).get("sha256", "")
    if segmented and volume.sha256 and segmented != volume.sha256:
        raise ScanChangedError(f"{volume.name}: this is not the scan of which {folder.name} is the result.")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.parent.name} holds no complete result ({path.name}).") from error
