"""Volume -> LabelMap on the volume's own grid. Knows a network, no files and no page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from medseg.errors import ModelIntegrityError
from medseg.imaging.volume import Array, Finding, Geometry, Volume
from medseg.inference.backends.build import build_predictor, machine_facts
from medseg.inference.backends.predictor import Predictor
from medseg.inference.memory import Forecast, Job, TileCost, fit, measure_tiles, occupied_by
from medseg.inference.predict import Paced, checked, predict_blocks
from medseg.inference.region import Region, body_region, patient_region
from medseg.inference.streaming import Refine
from medseg.inference.tissue import segment_tissue
from medseg.inference.twins import mean_of_twins, twins_of
from medseg.inference.windows import MARGIN, Box
from medseg.labels import LabelTable
from medseg.models.card import Anatomy, ModelCard
from medseg.models.notes import recall, remember
from medseg.models.store import ModelPackage
from medseg.preprocess.blocks import LogitBlock, label_grid
from medseg.preprocess.prepare import Prepared, model_grid, prepare
from medseg.preprocess.restore import LabelMap, restore_blocks
from medseg.results.anatomy import check_anatomy
from medseg.results.cleanup import remove_islands
from medseg.runtime.options import Options
from medseg.runtime.progress import Progress, ProgressCallback, ignore
from medseg.runtime.provenance import StageClock
from medseg.runtime.room import free_mb

MARGIN_MM = 30.0  # around a region that another model found: its outlines are rough
STEADY = 0.1  # what is remembered of a window's time is corrected where a run was further off
UNCHECKED = Finding(
    "raw_probabilities", "Probabilities are the network's own: they also show what was removed from the mask.", "info"
)
Costs = Callable[[], tuple[TileCost, ...]]
Learn = Callable[[int, float], None]  # windows at a time, seconds of one
# One window keeps all cores of a CPU busy: more at a time only take memory.
CPU_BATCHES, GPU_BATCHES = (1,), (1, 2, 4, 8)


@dataclass(frozen=True)
class Raw:
    """What a segmenter returns: labels on the volume's grid and what to say about them.

    `probabilities` are uint8 in per cent, by organ, of those that the options name.
    """

    label_map: LabelMap
    findings: tuple[Finding, ...]
    forecast: Forecast | None = None
    probabilities: Mapping[str, Array] = field(default_factory=dict)


class Segmenter(Protocol):
    """Anything that labels a volume."""

    labels: LabelTable

    def __call__(
        self,
        volume: Volume,
        clock: StageClock,
        progress: ProgressCallback = ignore,
        options: Options | None = None,
    ) -> Raw: ...

    def forecast(self, volume: Volume, options: Options | None = None) -> Forecast | None: ...


class NetworkSegmenter:
    """Prepare, slide and decide labels meanwhile, clean, check against anatomy.

    Args:
        predictor: [1, 1, *patch] float32 -> [1, C, *patch] logits.
        card: supplies spacing, HU window, patch, overlap, labels and anatomy.
        costs: what windows cost, asked when a forecast is wanted; None measures it.

    Raises:
        ModelIntegrityError: the card has no input, or its labels are not the network's channels 1, 2, 3 ...
    """

    def __init__(self, predictor: Predictor, card: ModelCard, costs: Costs | None = None) -> None:
        if card.input is None:
            raise ModelIntegrityError(f"Model {card.id} does not say what input its network wants.")
        self.predictor, self.input = predictor, card.input
        self.backend, self.precision = predictor.backend, predictor.precision
        self.labels: LabelTable = card.label_table
        if list(self.labels.names.values()) != list(range(1, len(self.labels) + 1)):
            raise ModelIntegrityError(f"Model {card.id}: the labels of a network must be numbered 1, 2, 3 ...")
        self.id, self.maps = card.id, card.maps
        twins = twins_of(card.input, self.labels)
        self.predict = self.paced = Paced(checked(predictor))
        self.refine = mean_of_twins(self.predict, twins)
        self.costs: Costs = costs or self._measure
        self.learn: Learn = _forget
        self.anatomy: Anatomy | None = card.anatomy
        self.keep_islands = card.keep_islands

    def forecast(self, volume: Volume, options: Options | None = None, within: Region | None = None) -> Forecast:
        """Time and peak memory of this scan, and the plan that keeps the limit of the options.

        Raises:
            ResourceError: no plan keeps it.
            ConfigError: probabilities of an organ that the model does not know.
        """
        options = options or Options()
        occupied_mb = occupied_by(volume.hu)  # before windows are measured, which may leave something behind
        costs, grid = self.costs(), self.grid_of(volume)
        job = Job(
            volume.geometry,
            self.input,
            classes=len(self.labels) + 1,
            searched=None if within is None else within.on(grid, MARGIN_MM),
            body=self._body(volume, grid),
            maps=len(self.maps(options.probabilities)),
        )
        return fit(job, costs, occupied_mb, options.max_memory_mb, volume.name, free_mb() / options.neighbours)

    def _body(self, volume: Volume, grid: Geometry) -> Box | None:
        """Roughly where windows will lie; None is everywhere."""
        if self.input.spread is not None:
            return None
        if self.input.fitted:
            return self._patient(volume, grid)
        region = body_region(volume.hu, volume.geometry, self.input.window_hu[0])
        return None if region is None else region.on(grid, MARGIN * np.array(grid.spacing_mm))

    def _patient(self, volume: Volume, grid: Geometry) -> Box | None:
        """Where fitted windows lie; None leaves it to where the image is denser than air."""
        region = patient_region(volume.hu, volume.geometry) if self.input.fitted else None
        return None if region is None else region.on(grid, 0.0)

    def _measure(self) -> tuple[TileCost, ...]:
        batches = GPU_BATCHES if self.predictor.device == "cuda" else CPU_BATCHES
        return measure_tiles(self.predict, self.input.patch_size, batches)

    def __call__(
        self,
        volume: Volume,
        clock: StageClock,
        progress: ProgressCallback = ignore,
        options: Options | None = None,
        within: Region | None = None,
    ) -> Raw:
        """Label `volume`. Progress runs from 0.1 to 0.9 of the whole job.

        `within` is the region that is searched, with a margin; beyond it lies background.
        """
        options = options or Options()
        with clock.stage("forecast"):
            plan = self.forecast(volume, options, within)
            progress(Progress("forecast", 0.08, f"This will take {plan}"))
        self.paced.pace()
        maps = self.maps(options.probabilities)
        label_map = self._decide(volume, plan, clock, progress, within, tuple(maps.values()))
        if (seconds := self.paced.pace()) is not None:
            self.learn(plan.batch, seconds)
        with clock.stage("clean"):
            progress(Progress("clean", 0.85, "Removing islands, checking anatomy"))
            raw = replace(self._clean(label_map, volume), forecast=plan)
            found = {name: label_map.probabilities[value] for name, value in maps.items()}
            return replace(raw, probabilities=found, findings=(*raw.findings, UNCHECKED)) if found else raw

    def _decide(
        self,
        volume: Volume,
        plan: Forecast,
        clock: StageClock,
        progress: ProgressCallback,
        within: Region | None,
        maps: Sequence[int],
    ) -> LabelMap:
        """The network's labels; the image that it saw is gone afterwards, which cleaning has room for."""
        with clock.stage("prepare"):
            progress(Progress("prepare", 0.1, "Resampling to the model's grid"))
            prepared = self._prepare(volume)
        with clock.stage("segment"):
            blocks = self._blocks(
                prepared,
                plan,
                lambda share: progress(Progress("segment", 0.15 + 0.7 * share, "Finding organs")),
                self.refine,
                within,
                self._patient(volume, prepared.grid),
            )
            return restore_blocks(blocks, prepared.grid, prepared.source, maps)

    def rough(self, volume: Volume, organs: Sequence[str], plan: Forecast, on_window: Callable[[float], None]) -> Array:
        """Values of `organs` on the model's own grid, uint8 or uint16, 0 elsewhere; neither cleaned nor checked.

        `on_window` gets the share that is done and may raise to cancel.
        """
        prepared = self._prepare(volume)
        blocks = self._blocks(prepared, plan, on_window, body=self._patient(volume, prepared.grid))
        found = label_grid(blocks, prepared.image.shape)
        found[~np.isin(found, [self.labels[name].value for name in organs])] = 0
        return found

    def grid_of(self, volume: Volume) -> Geometry:
        """The model's grid for a scan."""
        return model_grid(volume.geometry, self.input.spacing_mm, self.input.intensity)

    def _prepare(self, volume: Volume) -> Prepared:
        return prepare(volume, self.input.spacing_mm, self.input.window_hu, self.input.intensity)

    def _blocks(
        self,
        prepared: Prepared,
        plan: Forecast,
        on_window: Callable[[float], None],
        refine: Refine | None = None,
        within: Region | None = None,
        body: Box | None = None,
    ) -> Iterator[LogitBlock]:
        """The network's blocks, their number of channels checked."""
        blocks = predict_blocks(
            self.predict,
            prepared.image,
            self.input,
            air=prepared.air,
            refine=refine,
            within=None if within is None else within.on(prepared.grid, MARGIN_MM),
            body=body,
            parts=plan.parts,
            batch=plan.batch,
            on_window=on_window,
        )
        for block in blocks:
            if len(block.logits) not in (1, len(self.labels) + 1):  # 1: nothing but air so far
                raise ModelIntegrityError(
                    f"Model {self.id}: {len(block.logits)} channels for {len(self.labels)} labels and background."
                )
            yield block

    def _clean(self, label_map: LabelMap, volume: Volume) -> Raw:
        cleaned = label_map if self.keep_islands else remove_islands(label_map, self.labels)
        if self.anatomy is None:
            return Raw(cleaned, ())
        checked, findings = check_anatomy(cleaned, volume, self.labels, self.anatomy)
        return Raw(checked, tuple(findings))


class TissueSegmenter:
    """The model-free `tissue-hu`: thresholds and morphology, nothing learned."""

    def __init__(self, card: ModelCard) -> None:
        self.labels, self.maps = card.label_table, card.maps

    def forecast(self, volume: Volume, options: Options | None = None) -> None:
        """Nothing is foretold of rules."""

    def __call__(
        self,
        volume: Volume,
        clock: StageClock,
        progress: ProgressCallback = ignore,
        options: Options | None = None,
    ) -> Raw:
        """Label `volume` with body, lungs, bone and fat; says so where a limit was asked for, which it cannot keep.

        Raises:
            ConfigError: probabilities were asked for.
        """
        options = options or Options()
        self.maps(options.probabilities)
        with clock.stage("segment"):
            label_map, findings = segment_tissue(volume, self.labels, progress)
        if options.max_memory_mb is not None:
            findings.append(
                Finding("no_limit", "This model works without a network; the limit of memory was not kept.")
            )
        return Raw(label_map, tuple(findings))


def build_segmenter(package: ModelPackage, options: Options | None = None) -> Segmenter:
    """The segmenter of a verified package.

    Raises:
        ModelIntegrityError: weights that do not fit the card's network, or are not finite.
        ConfigError: a backend or precision that does not exist or cannot run this model.
    """
    card = package.card
    if card.kind == "rules":
        return TissueSegmenter(card)
    options = options or Options()
    predictor = build_predictor(package, options.backend, options.precision)
    segmenter = NetworkSegmenter(predictor, card)
    way = f"{predictor.backend} {predictor.precision}"
    segmenter.costs = partial(_remembered, package, segmenter.costs, way)
    segmenter.learn = partial(_learned, package, way)
    return segmenter


def _forget(batch: int, seconds: float) -> None:
    """Nobody keeps it."""


def _facts(package: ModelPackage, way: str) -> dict[str, Any]:
    return machine_facts() | {"model": package.sha256, "way": way}


def _learned(package: ModelPackage, way: str, batch: int, seconds: float) -> None:
    """Correct what is remembered by what a run took: it may have been measured while the machine was busy."""
    facts = _facts(package, way)
    costs = _noted_costs(recall("window", facts))
    known = {cost.batch: cost.seconds for cost in costs}
    if batch not in known or abs(seconds / known[batch] - 1) < STEADY:
        return
    corrected = [replace(c, seconds=(c.seconds + seconds) / 2) if c.batch == batch else c for c in costs]
    remember("window", facts, {"costs": [asdict(cost) for cost in corrected]})


def _remembered(package: ModelPackage, measure: Costs, way: str) -> tuple[TileCost, ...]:
    """What windows cost on this machine, measured when it is asked for the first time."""
    facts = _facts(package, way)
    costs = _noted_costs(recall("window", facts))
    if not costs:
        costs = measure()
        remember("window", facts, {"costs": [asdict(cost) for cost in costs]})
    return costs


def _noted_costs(note: dict[str, Any] | None) -> tuple[TileCost, ...]:
    """What a note says; nothing where there is none, or it is damaged."""
    try:
        rows = [] if note is None else note["costs"]
        return tuple(TileCost(float(row["seconds"]), float(row["memory_mb"]), int(row["batch"])) for row in rows)
    except (TypeError, KeyError, ValueError):
        return ()
