"""Volume -> LabelMap on the volume's own grid. Knows a network, no files and no page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from medseg.errors import ConfigError, ModelIntegrityError
from medseg.imaging.volume import Finding, Volume
from medseg.inference.predict import cpu_precision, predict_blocks
from medseg.inference.tissue import segment_tissue
from medseg.labels import LabelTable
from medseg.models.card import Anatomy, ModelCard
from medseg.models.store import WEIGHTS, ModelPackage, load_model
from medseg.networks.catalogue import build_network
from medseg.preprocess.blocks import LogitBlock
from medseg.preprocess.prepare import Prepared, prepare
from medseg.preprocess.restore import LabelMap, restore_blocks
from medseg.results.anatomy import check_anatomy
from medseg.results.cleanup import remove_islands
from medseg.runtime.progress import Progress, ProgressCallback, ignore
from medseg.runtime.provenance import StageClock


@dataclass(frozen=True)
class Raw:
    """What a segmenter returns: labels on the volume's grid and what to say about them."""

    label_map: LabelMap
    findings: tuple[Finding, ...]


class Segmenter(Protocol):
    """Anything that labels a volume."""

    labels: LabelTable

    def __call__(self, volume: Volume, clock: StageClock, progress: ProgressCallback = ignore) -> Raw: ...


class NetworkSegmenter:
    """Prepare, slide and decide labels meanwhile, clean, check against anatomy.

    Args:
        network: [1, 1, i, j, k] -> [1, C, i, j, k] logits, in evaluation mode.
        card: supplies spacing, HU window, patch, overlap, labels and anatomy.
        precision: 'bf16' (autocast) or 'fp32'; None takes what this CPU does best.

    Raises:
        ModelIntegrityError: the card has no input, or its labels are not the network's channels 1, 2, 3 ...
    """

    def __init__(self, network: nn.Module, card: ModelCard, precision: str | None = None) -> None:
        if card.input is None:
            raise ModelIntegrityError(f"Model {card.id} does not say what input its network wants.")
        self.network, self.input, self.precision = network, card.input, precision or cpu_precision()
        self.labels: LabelTable = card.label_table
        if list(self.labels.names.values()) != list(range(1, len(self.labels) + 1)):
            raise ModelIntegrityError(f"Model {card.id}: the labels of a network must be numbered 1, 2, 3 ...")
        self.id = card.id
        self.mirrored_channels = _mirrored_channels(self.labels) if card.input.mirror_average else None
        self.anatomy: Anatomy | None = card.anatomy

    def __call__(self, volume: Volume, clock: StageClock, progress: ProgressCallback = ignore) -> Raw:
        """Label `volume`. Progress runs from 0.1 to 0.9 of the whole job."""
        with clock.stage("prepare"):
            progress(Progress("prepare", 0.1, "Resampling to the model's grid"))
            prepared = prepare(volume, self.input.spacing_mm, self.input.window_hu)
        with clock.stage("segment"):
            label_map = restore_blocks(self._blocks(prepared, progress), prepared.grid, prepared.source)
        with clock.stage("clean"):
            progress(Progress("clean", 0.85, "Removing islands, checking anatomy"))
            return self._clean(label_map, volume)

    def _blocks(self, prepared: Prepared, progress: ProgressCallback) -> Iterator[LogitBlock]:
        """The network's blocks, their number of channels checked."""
        blocks = predict_blocks(
            self.network,
            prepared.image,
            window=self.input.patch_size,
            overlap=self.input.overlap_ratio,
            precision=self.precision,
            mirrored_channels=self.mirrored_channels,
            on_window=lambda share: progress(Progress("segment", 0.15 + 0.7 * share, "Finding organs")),
        )
        for block in blocks:
            if len(block.logits) not in (1, len(self.labels) + 1):  # 1: nothing but air so far
                raise ModelIntegrityError(
                    f"Model {self.id}: {len(block.logits)} channels for {len(self.labels)} labels and background."
                )
            yield block

    def _clean(self, label_map: LabelMap, volume: Volume) -> Raw:
        cleaned = remove_islands(label_map, self.labels)
        if self.anatomy is None:
            return Raw(cleaned, ())
        checked, findings = check_anatomy(cleaned, volume, self.labels, self.anatomy)
        return Raw(checked, tuple(findings))


def _mirrored_channels(labels: LabelTable) -> list[int]:
    channels = list(range(len(labels) + 1))
    for right, left in labels.mirror_pairs():
        channels[right], channels[left] = left, right
    return channels


class TissueSegmenter:
    """The model-free `tissue-hu`: thresholds and morphology, nothing learned."""

    def __init__(self, card: ModelCard) -> None:
        self.labels = card.label_table

    def __call__(self, volume: Volume, clock: StageClock, progress: ProgressCallback = ignore) -> Raw:
        """Label `volume` with body, lungs, bone and fat."""
        with clock.stage("segment"):
            label_map, findings = segment_tissue(volume, self.labels, progress)
        return Raw(label_map, tuple(findings))


def build_segmenter(package: ModelPackage) -> Segmenter:
    """The segmenter of a verified package.

    Raises:
        ModelIntegrityError: weights that do not fit the card's network, or are not finite.
    """
    card = package.card
    if card.kind == "rules":
        return TissueSegmenter(card)
    if card.network is None:
        raise ModelIntegrityError(f"Model {card.id} does not name its network.")
    options = card.network.options | {"deep_supervision": 0}
    try:
        network = build_network(card.network.name, options)
    except ConfigError as error:
        raise ModelIntegrityError(f"Model {card.id}: {error}") from error
    _load_weights(network, package)
    return NetworkSegmenter(network.eval().to(memory_format=torch.channels_last_3d), card)  # type: ignore[call-overload]


def _load_weights(network: nn.Module, package: ModelPackage) -> None:
    try:
        weights = load_file(package.file(WEIGHTS))
    except SafetensorError as error:
        raise ModelIntegrityError(f"Model {package.card.id}: {WEIGHTS} is no safetensors file.") from error
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise ModelIntegrityError(f"Model {package.card.id}: weights are not finite.")
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise ModelIntegrityError(f"Model {package.card.id}: weights do not fit the network of its card.") from error


@lru_cache(maxsize=4)
def _warm(name: str, sha256: str) -> tuple[ModelPackage, Segmenter]:
    package = load_model(name)
    return package, build_segmenter(package)


def warm_segmenter(name: str) -> tuple[ModelPackage, Segmenter]:
    """Package and segmenter of a model, loaded once per process and again when its card changes."""
    return _warm(name, load_model(name).sha256)
