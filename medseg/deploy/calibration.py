"""Real tiles for calibration: what the network will see, cut from scans of the user."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medseg.errors import DataError, ModelIntegrityError
from medseg.evaluation.tables import find_index
from medseg.imaging import Volume, read_volume
from medseg.inference.windows import Windows, body_box, cut
from medseg.jobs.studies import find_studies
from medseg.models.card import InputSpec
from medseg.models.store import ModelPackage
from medseg.preprocess.prepare import prepare

TILES_PER_SCAN = 12
ENOUGH_SCANS = 12  # to calibrate, and as many to judge: more take minutes each and change no verdict
_MASK = re.compile(r"_(label|labels|mask|seg|segmentation)\.nii(\.gz)?$")


def find_scans(place: Path) -> list[Path]:
    """CT scans of a folder (NIfTI, NRRD, MHA, zip, DICOM folders), sorted; label maps beside them are left out.

    Raises:
        DataError: there is none.
    """
    if not place.exists():
        raise DataError(f"There is nothing at {place}.")
    skipped: list[str] = []
    found = find_studies(place, report=lambda path, reason: skipped.append(f"{path.name} {reason}"))
    scans = [path for path in {*found, *_taken_over(place)} if not _MASK.search(path.name)]
    if not scans:
        why = f" {skipped[0]}" if skipped else ""
        raise DataError(f"No CT scan in {place}.{why}", advice="Give a folder of NIfTI files or DICOM folders.")
    return sorted(scans)


def _taken_over(place: Path) -> list[Path]:
    """Scans of another tool's data set beside our index of it: links to its files, which lie elsewhere."""
    if find_index(place) is None:
        return []
    return [path for path in place.glob("*_ct.nii.gz") if path.is_symlink() and path.is_file()]


def split(scans: Sequence[Path], enough: int = ENOUGH_SCANS) -> tuple[list[Path], list[Path]]:
    """Scans to calibrate with, and scans to judge by: every second each, at most `enough`, spread over all.

    One scan alone serves for both.
    """
    return _spread(scans[::2], enough), _spread(scans[1::2] or scans, enough)


def _spread(scans: Sequence[Path], count: int) -> list[Path]:
    chosen = np.linspace(0, len(scans) - 1, min(count, len(scans))).round().astype(int)
    return [scans[n] for n in chosen]


def calibration_tiles(package: ModelPackage, scans: Sequence[Path], per_scan: int = TILES_PER_SCAN) -> Iterator[Tensor]:
    """Tiles float32 [1, 1, *patch] of each scan's body, as inference cuts them, spread over the scan.

    Raises:
        InputError: a scan cannot be used.
        ModelIntegrityError: the card has no input.
    """
    spec = package.card.input
    if spec is None:
        raise ModelIntegrityError(f"Model {package.card.id} does not say what input its network wants.")
    for scan in scans:
        yield from tiles_of(read_volume(scan), spec, per_scan)


def tiles_of(volume: Volume, spec: InputSpec, count: int) -> Iterator[Tensor]:
    """At most `count` tiles of one scan, those that hold air alone left out."""
    prepared = prepare(volume, spec.spacing_mm, spec.window_hu, spec.intensity)
    inner = prepared.image[body_box(prepared.image, prepared.air)][None]
    windows = Windows.over(inner.shape[1:], spec.patch_size, spec.overlap_ratio)
    starts = [start for k in windows.starts[2] for start in windows.layer(k, slice(0, 1 << 30), slice(0, 1 << 30))]
    tiles = (cut(inner, start, spec.patch_size, spec.beyond) for start in starts)
    full = [start for start, tile in zip(starts, tiles, strict=True) if tile.max() > prepared.air + 1e-3]
    for index in sorted({round(at) for at in np.linspace(0, len(full) - 1, min(count, len(full)))}):
        yield torch.from_numpy(cut(inner, full[index], spec.patch_size, spec.beyond))[None]
