"""The parity gate: a variant enters a package only when its masks are those of the fp32 network.

Masks are compared whole: the same segmenter, with its resampling, anatomy check and cleaning, once with PyTorch in
float32 and once with the variant, on scans that calibration has not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.deploy.references import References
from medseg.imaging import read_volume
from medseg.imaging.volume import Array, Geometry
from medseg.inference.backends.build import machine_facts
from medseg.inference.backends.measure import noise_tile, relative_error, side_by_side
from medseg.inference.backends.predictor import Predictor, patch_of
from medseg.inference.backends.torch_backend import TorchPredictor, load_network
from medseg.inference.segmenter import NetworkSegmenter
from medseg.models.card import VariantFigures
from medseg.models.store import ModelPackage
from medseg.runtime.provenance import StageClock

PerOrgan = dict[str, float]


@dataclass(frozen=True)
class Gate:
    """What a variant may lose.

    Attributes:
        min_agreement: mean over organs of Dice with the fp32 masks, at least.
        min_organ_agreement: the same of every single organ.
        max_dice_loss: mean over organs of the loss of Dice against references.
        max_organ_dice_loss: the same of every single organ.
        max_logit_error: of float variants: difference of logits on a test tile, relative.
    """

    min_agreement: float = 0.95
    min_organ_agreement: float = 0.85
    max_dice_loss: float = 0.005
    max_organ_dice_loss: float = 0.02
    max_logit_error: float = 1e-3

    def objections(self, figures: VariantFigures, precision: str) -> list[str]:
        """Why the variant must stay outside; empty where it may enter."""
        return [*self._logits(figures, precision), *self._agreement(figures), *self._references(figures)]

    def _logits(self, figures: VariantFigures, precision: str) -> list[str]:
        if precision == "fp32":
            wrong = figures.logit_error > self.max_logit_error
            return [f"its logits differ by {figures.logit_error:.2%}"] if wrong else []
        if any(value is not None for value in figures.agreement.values()):
            return []
        return ["there was no scan in which an organ was found, so nothing could be compared"]

    def _agreement(self, figures: VariantFigures) -> list[str]:
        found = {organ: value for organ, value in figures.agreement.items() if value is not None}
        bad = [f"{organ} agrees by {v:.3f}" for organ, v in found.items() if v < self.min_organ_agreement]
        mean = float(np.mean(list(found.values()))) if found else 1.0
        return bad + ([f"organs agree by {mean:.3f} on average"] if mean < self.min_agreement else [])

    def _references(self, figures: VariantFigures) -> list[str]:
        losses = {organ: figures.dice_fp32[organ] - figures.dice[organ] for organ in figures.dice}
        bad = [f"{organ} loses {v:.3f} of Dice" for organ, v in losses.items() if v > self.max_organ_dice_loss]
        mean = float(np.mean(list(losses.values()))) if losses else 0.0
        return bad + ([f"{mean:.4f} of Dice are lost on average"] if mean > self.max_dice_loss else [])


class Judge:
    """Compares variants with the fp32 network of a package; the fp32 side is computed once.

    Args:
        package: its weights are the truth here.
        scans: CT scans to segment; empty: logits and latency alone.
        references: contours of some of these scans.
    """

    def __init__(self, package: ModelPackage, scans: Sequence[Path] = (), references: References | None = None) -> None:
        self.package, self.scans, self.references = package, scans, references
        self._truth = TorchPredictor(load_network(package), "fp32")
        self._fp32: dict[Path, Array] = {}

    def figures(self, variant: Predictor, file: Path, fp32_bytes: int) -> VariantFigures:
        """Everything that the gate asks and the card tells."""
        tile = noise_tile(patch_of(self.package))
        error = relative_error(variant(tile), self._truth(tile))
        seconds, eager = side_by_side(variant, self._truth, tile)
        agreement, ours, theirs = self._compare(variant)
        size = file.stat().st_size
        return VariantFigures(
            scans=len(self.scans),
            agreement=agreement,
            dice=ours,
            dice_fp32=theirs,
            logit_error=round(min(error, 1e9), 6),
            size_bytes=size,
            size_ratio=round(size / fp32_bytes, 4),
            seconds=round(seconds, 4),
            latency_ratio=round(seconds / eager, 4),
            machine="{processor}, {threads} threads".format(**machine_facts()),
        )

    def _compare(self, variant: Predictor) -> tuple[dict[str, float | None], PerOrgan, PerOrgan]:
        labels = self.package.card.label_table.names
        agreements: list[Mapping[str, float | None]] = []
        ours: list[Mapping[str, float | None]] = []
        theirs: list[Mapping[str, float | None]] = []
        for scan, grid, truth, mask in self._masks(variant):
            agreements.append({organ: dice(mask == value, truth == value) for organ, value in labels.items()})
            if self.references is not None and self.references.covers(scan):
                ours.append(self.references.dice(scan, mask, grid, labels))
                theirs.append(self.references.dice(scan, truth, grid, labels))
        scored, scored_fp32 = _means(ours), _means(theirs)
        both = scored.keys() & scored_fp32.keys()
        means: dict[str, float | None] = dict.fromkeys(labels) if agreements else {}
        means |= _means(agreements)
        return means, {o: scored[o] for o in labels if o in both}, {o: scored_fp32[o] for o in labels if o in both}

    def _masks(self, variant: Predictor) -> Iterator[tuple[Path, Geometry, Array, Array]]:
        segmenters = [NetworkSegmenter(one, self.package.card) for one in (self._truth, variant)]
        for scan in self.scans:
            volume = read_volume(scan)
            if scan not in self._fp32:
                self._fp32[scan] = segmenters[0](volume, StageClock()).label_map.labels
            yield scan, volume.geometry, self._fp32[scan], segmenters[1](volume, StageClock()).label_map.labels


def dice(one: Array, other: Array) -> float | None:
    """2·|A∩B| / (|A|+|B|) of two bool arrays; None where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else None


def _means(rows: Sequence[Mapping[str, float | None]]) -> PerOrgan:
    organs = {organ: [row[organ] for row in rows if row.get(organ) is not None] for row in rows for organ in row}
    return {organ: round(float(np.mean(values)), 4) for organ, values in organs.items() if values}  # type: ignore[arg-type]
