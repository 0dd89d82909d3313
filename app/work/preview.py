"""A coarse result where the full one takes long: fewer windows, a coarser grid, no checks. Shown, and thrown away."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.work.segment import SHOWN, keep_for_page
from medseg.imaging import Geometry, Volume
from medseg.imaging.emit import emit_json
from medseg.imaging.volume import Array
from medseg.inference.segmenter import NetworkSegmenter
from medseg.inference.warm import warm_segmenter
from medseg.preprocess.restore import LabelMap
from medseg.results.measure import measure
from medseg.results.segmentation import Segmentation
from medseg.runtime.progress import Progress, ProgressCallback
from medseg.runtime.provenance import StageClock

WORTH_S = 15.0


def write_preview(folder: Path, volume: Volume, model: str, progress: ProgressCallback) -> None:
    """Segment coarsely and lay the result out for the viewer in `folder`; nothing for models without a network."""
    package, segmenter = warm_segmenter(model)
    if not isinstance(segmenter, NetworkSegmenter):
        return
    progress(Progress("preview", 0.04, ""))
    card = package.card
    assert card.input is not None
    once = {"overlap_ratio": 0.0, "mirror_average": False, "mirror_axes": (), "spread": None}
    quick = card.input.model_copy(update=once)
    coarse = NetworkSegmenter(
        segmenter.predictor, card.model_copy(update={"input": quick, "anatomy": None}), segmenter.costs
    )
    strides = [
        max(1, int(wanted / step))
        for wanted, step in zip(_towards(volume, quick.spacing_mm), volume.spacing_mm, strict=True)
    ]
    small = _every(volume, strides)
    labels = _enlarged(coarse(small, StageClock()).label_map.labels, strides, volume.geometry.shape)
    rows = measure(LabelMap(labels, np.zeros_like(labels), volume.geometry), volume, segmenter.labels)
    run = {"model": {"name": card.name, "version": card.version}}
    _write(folder, Segmentation(labels, segmenter.labels, volume, rows, (), run))


def _towards(volume: Volume, spacing_mm: tuple[float, float, float]) -> list[float]:
    """The model's spacing along the axes of the stored array."""
    return [spacing_mm[int(axis)] for axis in volume.geometry.to_canonical[:, 0]]


def _every(volume: Volume, strides: list[int]) -> Volume:
    i, j, k = strides
    hu = np.ascontiguousarray(volume.hu[::i, ::j, ::k])
    return Volume(hu, Geometry(hu.shape, volume.affine @ np.diag([i, j, k, 1.0])), name=volume.name)


def _enlarged(labels: Array, strides: list[int], shape: tuple[int, int, int]) -> Array:
    axes = [
        np.minimum((np.arange(size) + stride // 2) // stride, count - 1)
        for size, stride, count in zip(shape, strides, labels.shape, strict=True)
    ]
    return np.ascontiguousarray(labels[np.ix_(*axes)])


def _write(folder: Path, result: Segmentation) -> None:
    part = folder.with_name(f".{folder.name}")
    part.mkdir(parents=True, exist_ok=True)
    emit_json(part / "labels.json", {"model": result.run["model"], "labels": result.labels.to_json()})
    emit_json(part / "measurements.json", [row.to_json() for row in result.measurements])
    emit_json(part / "run.json", result.run | {"findings": []})
    keep_for_page(part / SHOWN, result)
    part.rename(folder)
