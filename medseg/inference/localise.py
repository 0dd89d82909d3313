"""A quick model finds where the organs are; the other one then computes only there.

The idea is TotalSegmentator's: its 6 mm model crops a scan before the 1.5 mm models see it. Here any two models that
name the same organs work together. Where the quick one would save nothing, or finds nothing, the whole body is
searched, and the result says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medseg.errors import ConfigError
from medseg.imaging.volume import Finding, Volume
from medseg.inference.memory import Forecast
from medseg.inference.region import Region
from medseg.inference.segmenter import NetworkSegmenter, Raw
from medseg.runtime.options import Options
from medseg.runtime.progress import Progress, ProgressCallback, ignore
from medseg.runtime.provenance import StageClock

WORTH = 0.5  # of the other model's time; a localiser that takes more cannot save much


class LocalisedSegmenter:
    """A segmenter whose network sees only the part of the scan in which a quicker one found the organs.

    Args:
        quick: finds where they are; its labels name some of the same organs.
        full: decides the labels.

    Raises:
        ConfigError: the two have no organ in common.
    """

    def __init__(self, quick: NetworkSegmenter, full: NetworkSegmenter) -> None:
        self.quick, self.full, self.labels = quick, full, full.labels
        self.backend, self.precision = full.backend, full.precision
        self.organs = [label.name for label in quick.labels if label.name in full.labels.names]
        if not self.organs:
            raise ConfigError(
                f"Model {quick.id} knows none of the organs of {full.id} and cannot find them for it.",
                advice="Choose a localiser that names the same organs.",
            )

    def __call__(
        self,
        volume: Volume,
        clock: StageClock,
        progress: ProgressCallback = ignore,
        options: Options | None = None,
    ) -> Raw:
        """Label `volume`; a finding tells where it was searched."""
        options = options or Options()
        with clock.stage("localise"):
            progress(Progress("localise", 0.05, "Looking where the organs are"))
            region, finding = self._region(volume, options, progress)
        raw = self.full(volume, clock, progress, options, within=region)
        return replace(raw, findings=(finding, *raw.findings))

    def forecast(self, volume: Volume, options: Options | None = None) -> Forecast:
        """As if the whole body had to be searched: where the organs are is not known yet.

        Raises:
            ResourceError: no plan keeps the limit.
        """
        return self.full.forecast(volume, options)

    def _region(self, volume: Volume, options: Options, progress: ProgressCallback) -> tuple[Region | None, Finding]:
        plan = self.quick.forecast(volume, replace(options, probabilities=()))
        # Without the limit: what the other model needs of the whole scan is no matter where only a part is searched.
        if plan.seconds > WORTH * self.full.forecast(volume).seconds:
            return None, _whole(f"{self.quick.id} would save no time here")
        found = self.quick.rough(
            volume,
            self.organs,
            plan,
            lambda share: progress(Progress("localise", 0.05 + 0.03 * share, "Looking where the organs are")),
        )
        region = Region.around(found > 0, self.quick.grid_of(volume))
        if region is None:
            return None, _whole(f"{self.quick.id} found none of the organs")
        there = set(np.unique(found))
        return region, self._said([organ for organ in self.organs if self.quick.labels[organ].value in there])

    def _said(self, found: Sequence[str]) -> Finding:
        """Where was searched, and which organs may lie elsewhere."""
        where = f"Searched only where {self.quick.id} found {_listed(found)}."
        lost = [label.name for label in self.labels if label.name not in found]
        if not lost:
            return Finding("localised", where, "info")
        where += f" What lies outside that part of the scan is missing in the mask, maybe of {_listed(lost)}."
        return Finding("localised", where, "warning")


def _whole(why: str) -> Finding:
    return Finding("not_localised", f"The whole scan was searched: {why}.", "info")


def _listed(organs: Sequence[str]) -> str:
    names = [organ.replace("_", " ") for organ in organs[:4]]
    return ", ".join(names) + (f" and {len(organs) - 4} other organs" if len(organs) > 4 else "")
