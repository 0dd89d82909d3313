"""How much memory and time a run will take, before it is started; and a plan that keeps a limit.

The forecast is arithmetic over the arrays that the pipeline holds at a time, on top of what the process
occupies now and of one tile's cost in the network, which is measured once per machine and model.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import psutil
from torch import Tensor

from medseg.errors import ResourceError
from medseg.imaging.volume import Array, Geometry
from medseg.inference.backends.measure import noise_tile
from medseg.inference.streaming import BLOCK_VALUES, Predict, columns, count_visits
from medseg.inference.windows import Box, Windows, common, reached, shape_of
from medseg.models.card import InputSpec
from medseg.preprocess.prepare import model_grid
from medseg.preprocess.resample import PIECE_VOXELS, grid_like
from medseg.preprocess.restore import SLAB_VALUES
from medseg.runtime.provenance import peak_memory_mb, reset_peak_memory

MB = 2**20
_FLOAT = 4
_PARTS = [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8)]
_LATER_MB = 75.0  # of libraries, what is looked at only afterwards: restoring, measuring, drawing, writing
USABLE = 0.9  # share of what is free that is planned with where the user sets no limit
KEPT = 0.97  # of the user's limit that is planned with: the allocator's holes are in no forecast
NEARLY = 0.2  # so much longer may a plan take that wants less memory, where the user sets no limit
_MIRRORED = 0.5  # share of the mirror images that are computed; a rough figure, for the clock alone
_RESTORE_VALUES_PER_SECOND = 2.4e8  # logits interpolated and decided; a rough figure, for the clock alone


@dataclass(frozen=True)
class TileCost:
    """Windows through the network, `batch` at a time: seconds of one, and memory on top of what the process holds."""

    seconds: float
    memory_mb: float
    batch: int = 1


@dataclass(frozen=True)
class Forecast:
    """What a run will need.

    Attributes:
        memory_mb: peak of the whole process, MiB.
        seconds: from the scan in memory to its labels.
        parts: into how many columns the plane is cut to keep the limit.
        batch: windows that go through the network at a time.
    """

    memory_mb: float
    seconds: float
    parts: tuple[int, int] = (1, 1)
    batch: int = 1

    def __str__(self) -> str:
        return f"about {self.seconds:.0f} s and {self.memory_mb / 1024:.1f} GB"

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def measure_tiles(
    predict: Predict, window: tuple[int, int, int], batches: Sequence[int] = (1,)
) -> tuple[TileCost, ...]:
    """What windows of noise cost, in each of `batches`; a batch that does not fit, and larger ones, are left out.

    The process's own record of its peak starts anew.

    Raises:
        MemoryError, RuntimeError: not even the first fits.
    """
    costs: list[TileCost] = []
    for batch in batches:
        try:
            costs.append(_measure(predict, noise_tile(window).expand(batch, -1, -1, -1, -1)))
        except (MemoryError, RuntimeError):
            if not costs:
                raise
            break
    return tuple(costs)


def _measure(predict: Predict, tiles: Tensor) -> TileCost:
    """The first call shows the memory, the second the time."""
    reset_peak_memory()
    before = resident_mb()
    predict(tiles)
    memory = max(0.0, peak_memory_mb() - before)
    began = time.perf_counter()
    predict(tiles)
    return TileCost((time.perf_counter() - began) / len(tiles), memory, len(tiles))


def resident_mb() -> float:
    """What this process occupies now, MiB."""
    return float(psutil.Process().memory_info().rss / MB)


def occupied_by(hu: Array) -> float:
    """What this process occupies once all of a scan is in memory, MiB.

    A scan that was read by another process is mapped, and counts only as far as somebody has looked at it.
    """
    if hu.flags.forc:
        hu.ravel(order="K")[:: mmap.PAGESIZE // hu.itemsize].max(initial=0)
    return resident_mb()


@dataclass(frozen=True)
class Job:
    """A scan and a network, as far as memory and time depend on them.

    Attributes:
        source: the scan's grid; its HU are already in memory.
        spec: what the network wants to see.
        classes: background included.
        searched: the box of the model's grid that is computed at all; None is all of it.
        body: where in it windows will lie, about and for the time alone if they are not fitted; None is everywhere.
        bare: labels are decided and nothing else; the image that the network wants is in memory, too.
        maps: organs whose probability is kept for every voxel of the scan.
    """

    source: Geometry
    spec: InputSpec
    classes: int
    searched: Box | None = None
    body: Box | None = None
    bare: bool = False
    maps: int = 0

    @property
    def grid(self) -> Geometry:
        """The model's grid."""
        return model_grid(self.source, self.spec.spacing_mm, self.spec.intensity)

    @property
    def images(self) -> int:
        """How often the network sees a window, mirror images included, where it is unsure."""
        return 2 if self.spec.mirror_average else 2 ** len(self.spec.mirror_axes) // (1 + self.spec.mirror_even)

    def held(self) -> tuple[int, ...]:
        """Shape of the box whose logits may be held; fitted windows lie in the body for certain."""
        if self.spec.fitted and self.body is not None:
            return self.visited()
        return self.grid.shape if self.searched is None else self._windowed(self.searched)

    def visited(self) -> tuple[int, ...]:
        """Shape of the box that windows will cover."""
        return self.held() if self.body is None else self._windowed(common(self.body, self.searched))

    def _windowed(self, box: Box) -> tuple[int, ...]:
        return shape_of(reached(box, self.spec, self.grid.shape))


def forecast(job: Job, tile: TileCost, occupied_mb: float, parts: tuple[int, int] = (1, 1)) -> Forecast:
    """Peak memory and time of a job.

    Args:
        job: scan and network.
        tile: cost of a window, without its mirror images.
        occupied_mb: what the process holds before it starts.
        parts: how the plane is cut.
    """
    visited, voxels = job.visited(), math.prod(job.source.shape)
    stream = _stream_bytes(job, parts, tile.batch) + tile.memory_mb * MB
    # After the network come the mask, its confidence and their cleaned copies, a byte a voxel each, as maps have.
    stages = [stream] if job.bare else [prepare_bytes(job), stream, (7 + job.maps) * voxels]
    peak_mb = occupied_mb + max(stages) / MB + _LATER_MB
    visits = count_visits(Windows.of(job.spec, visited), visited, columns(visited, parts))
    looks = visits * (1 + _MIRRORED * (job.images - 1))
    seconds = looks * tile.seconds + voxels * job.classes / _RESTORE_VALUES_PER_SECOND
    return Forecast(round(peak_mb, 1), round(seconds, 2), parts, tile.batch)


def prepare_bytes(job: Job) -> float:
    """What the steps of `prepare` hold at a time, the largest of them."""
    source, cells = math.prod(job.source.shape), math.prod(job.grid.shape)
    steps = [*_resample_values(job), cells]
    if "z-score" in job.spec.intensity:  # the clipped scan and its squares in double precision; clipping, shifting
        steps += [cells + 3 * source, 3 * cells]
    return _FLOAT * max(steps)


def _resample_values(job: Job) -> list[int]:
    """By axis: what goes into a matrix product, that laid out for it, and what comes out. Then the way to one piece."""
    source = job.source.canonical()
    target = grid_like(source, job.spec.spacing_mm).shape
    shape, held = list(source.shape), []
    order = [int(axis) for axis in np.argsort(np.array(target) / np.array(source.shape))]
    for axis in order:
        before, is_same = math.prod(shape), shape[axis] == target[axis]
        shape[axis] = target[axis]
        aside = 3 * min(PIECE_VOXELS, before) if axis == order[0] else 0 if is_same else 2 * before
        held.append(aside + math.prod(shape))
    return [*held, math.prod(shape) + math.prod(job.grid.shape)]


def _stream_bytes(job: Job, parts: tuple[int, int], batch: int) -> float:
    spec, classes, held = job.spec, job.classes, job.held()
    i, j = (math.ceil(size / count) + 1 for size, count in zip(held[:2], parts, strict=True))
    depth = min(spec.patch_size[2], held[2])
    sums = classes * min(i, held[0]) * min(j, held[1]) * depth
    kept = 1 + (1 + spec.overlap_ratio) / classes  # the weights, and what is carried on of one channel
    plane = classes * min(i, held[0]) * min(j, held[1])  # blocks hold one slice at least, and that before it
    blocks = max(2 * min(sums, BLOCK_VALUES), 4 * plane) + 4 * SLAB_VALUES
    tiles = 2 * batch * math.prod(spec.patch_size)  # images: these and the next
    product = classes * math.prod(spec.patch_size)  # one window's logits, where they come in half precision
    twins = 0 if job.images == 1 else 4 * batch * product  # their sum, one of them, put back, and the mean
    scan = (2 + job.maps) * math.prod(job.source.shape)  # labels, confidence and maps
    shares = 2 * SLAB_VALUES if job.maps else 0
    image = 0 if job.bare else math.prod(job.grid.shape)
    return scan + _FLOAT * (image + kept * sums + blocks + shares + tiles + product + twins)


def fit(
    job: Job,
    tiles: Sequence[TileCost],
    occupied_mb: float,
    max_memory_mb: float | None,
    name: str = "the scan",
    free_mb: float = math.inf,
) -> Forecast:
    """The forecast of the fastest plan that keeps the limit: of all batches in `tiles`, whole or cut into columns.

    Without a limit of the user's, the leanest of those that are nearly as fast: other programs want memory, too.

    Args:
        job: scan and network.
        tiles: what windows cost.
        occupied_mb: what the process holds before it starts.
        max_memory_mb: the user's limit; None keeps to what is free, as far as any plan does.
        name: of the scan, for the error.
        free_mb: what the machine has left.

    Raises:
        ResourceError: no plan keeps the user's limit.
    """
    allowed = occupied_mb + USABLE * free_mb if max_memory_mb is None else KEPT * max_memory_mb
    plans = [forecast(job, tile, occupied_mb, parts) for parts in _PARTS for tile in tiles]
    least = min(plans, key=lambda plan: plan.memory_mb)
    fitting = [plan for plan in plans if plan.memory_mb <= allowed]
    if not fitting and max_memory_mb is not None:
        raise ResourceError(
            f"{name}: needs about {least.memory_mb / KEPT / 1024:.2f} GB of memory, and "
            f"{max_memory_mb / 1024:.2f} GB are allowed.",
            advice="Allow more, crop the scan, or take a model with larger voxels.",
        )
    if not fitting:
        return least
    fastest = min(fitting, key=lambda plan: plan.seconds)
    if max_memory_mb is not None:
        return fastest
    near = [plan for plan in fitting if plan.seconds <= (1 + NEARLY) * fastest.seconds]
    return min(near, key=lambda plan: plan.memory_mb)
