"""One config -> a trained, scored model package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from medseg.errors import ConfigError, DataError
from medseg.evaluation.scorecard import Scorecard
from medseg.labels import LabelTable
from medseg.models.card import ModelCard
from medseg.runtime.lock import busy
from medseg.training.cache import CaseCache
from medseg.training.cases import CHECK, Dataset, TrainingCase, check_left_out, read_index
from medseg.training.checkpoint import LAST
from medseg.training.config import FoldConfig, TrainConfig, load_config
from medseg.training.distributed import Ranks, everyones_share, from_first, joined, wait_for_all
from medseg.training.feed import workers_for
from medseg.training.foreign import adopt, locate
from medseg.training.links import INDEX
from medseg.training.package import add_metrics, write_package
from medseg.training.patches import PatchSampler
from medseg.training.phantoms import write_phantoms
from medseg.training.profiler import TrainingProfiler
from medseg.training.run_report import write_report, write_small_batch_report
from medseg.training.segmentation import SegmentationTask, check_network
from medseg.training.small_batch import require_sound, try_small_batch
from medseg.training.subset import deal_folds, write_subset
from medseg.training.tracking import mirror, require_mlflow
from medseg.training.trainer import Trainer
from medseg.training.validation import card_metrics, validate

Stage = Literal["both", "small", "full"]
PROFILE_S = 5.0
LOCK = ".lock"
_say = partial(print, flush=True)  # a log file shows a long run as it goes


def train_model(
    config: str | Path,
    out: Path,
    *,
    resume: bool = False,
    stage: Stage = "both",
    overrides: dict[str, Any] | None = None,
    report: Callable[[str], None] = _say,
) -> Path | None:
    """Train, package and score a model; under torchrun together with the other ranks.

    Args:
        config: YAML file or name of a preset.
        out: run folder.
        resume: go on from its checkpoint; start where there is none.
        stage: `small` stops after the small-batch validation; `both` goes on where that was sound; `full` leaves it
            out. A run that goes on from a checkpoint, and one whose config has `small_batch: null`, leaves it out too.
        overrides: settings that win over the config's.
        report: gets a line of text now and then, on the first rank.

    Returns:
        Folder of the model package; None after `small`, and on ranks other than the first, whose work ends with the
        training.

    Raises:
        ConfigError: a bad setting, a network that does not take the patches, a run that stands there already, or
            another training at work there.
        DataError: the dataset does not fit together, the small-batch validation was not sound, or a loss is not
            finite (names the cases).
        WorkerError: a rank, or a process that prepares batches, is gone.
        ResourceError: the GPU has too little memory.
    """
    settings = load_config(config, overrides)
    if (out / LAST).is_file() and not resume:
        raise ConfigError(f"{out} holds a run already.", advice="Go on with --resume, or choose another folder.")
    if settings.tracking is not None:
        require_mlflow()
    with ExitStack() as held:
        with joined(settings.loop.device) as ranks:
            if ranks.first:
                held.enter_context(_alone_in(out))
            say = report if ranks.first else _quiet
            settings, dataset = _with_data(settings, out, ranks, say)
            _check_network(Path(config).name, settings, dataset)
            task = _task(settings, dataset, out, say)
            fresh = from_first(not (out / LAST).is_file())  # all ranks take the same way
            if settings.small_batch is not None and stage != "full" and fresh:
                _try_first(out, settings, task, dataset, ranks, say, needed=stage == "both")
            if stage == "small":
                return None
            network = _train(settings, task, out, ranks, say)
        return _finish(out, settings, task, dataset, network, report) if ranks.first else None


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Two trainings that write one folder would spoil each other's checkpoints."""
    with busy(out / LOCK) as other:
        if other:
            advice = "Wait for it, end it, or choose another run folder."
            raise ConfigError(f"Another training is at work in {out}.", advice=advice)
        yield


def _try_first(
    out: Path,
    settings: TrainConfig,
    task: SegmentationTask,
    dataset: Dataset,
    ranks: Ranks,
    say: Callable[[str], None],
    *,
    needed: bool,
) -> None:
    """The small-batch validation; where it is `needed`, one that was not sound ends the run."""
    small = try_small_batch(out, settings, task, dataset, ranks, say)
    if ranks.first:
        say(f"report: {write_small_batch_report(out, settings)}")
    if needed:
        require_sound(small)


def _finish(
    out: Path,
    settings: TrainConfig,
    task: SegmentationTask,
    dataset: Dataset,
    network: nn.Module,
    report: Callable[[str], None],
) -> Path:
    """The package, its scores on the validation split, the report; returns the package's folder."""
    card = write_package(out / "package", network, settings, task.sampler.labels, task.sampler.cases)
    report("scoring on the validation split")
    scores = validate(out, settings, dataset, report)
    if scores is not None:
        card = add_metrics(out / "package", card, card_metrics(scores, _data_name(settings, scores)))
    page = write_report(out, settings, dataset, scores)
    report(f"report: {page}")
    if settings.tracking is not None:
        _mirror(out, settings, card, page, report)
    return out / "package"


def _train(
    settings: TrainConfig, task: SegmentationTask, out: Path, ranks: Ranks, say: Callable[[str], None]
) -> nn.Module:
    folder = out if ranks.first else None
    workers, device = workers_for(settings.loop.workers, ranks.device), ranks.device
    with TrainingProfiler(interval=PROFILE_S, folder=folder, workers=workers, device=device) as profiler:
        trainer = Trainer(
            task, settings.loop, out, ranks=ranks, progress=lambda event: say(event.message), watchers=[profiler]
        )
        trainer.resume()
        try:
            network = trainer.run()
        except KeyboardInterrupt:
            say(f"Stopped at step {trainer.step}; go on with --resume, from step {trainer.saved}.")
            raise
    verdict = profiler.verdict
    if verdict.steps:
        trainer.journal.note({"step": trainer.step, "profile": verdict.to_json() | {"missing": profiler.missing}})
        say(verdict.text)
    return network


def _data_name(settings: TrainConfig, scores: Scorecard) -> str:
    assert settings.index is not None
    patients = len(set(scores.patients or scores.cases))
    folder = settings.index.resolve().parent
    if settings.folds is not None:
        return f"{folder.name.replace('-', ' ')}, {patients} patients"
    name = "computed bodies" if settings.phantoms else folder.name
    return f"{name}, validation split, {patients} patients"


def _quiet(line: str) -> None:
    """Ranks after the first."""


def _mirror(out: Path, settings: TrainConfig, card: ModelCard, page: Path, report: Callable[[str], None]) -> None:
    assert settings.tracking is not None
    try:
        mirror(out, settings.tracking, settings, card, page)
    except Exception as error:  # a mirror for looking: the run's folder is the truth, and it is whole
        report(f"tracking: MLflow could not take the run: {error}")


def _with_data(
    settings: TrainConfig, out: Path, ranks: Ranks, say: Callable[[str], None]
) -> tuple[TrainConfig, Dataset]:
    """The settings with an index of ours, its cases fit for use and parted as the settings say; and that data set."""
    settings = _with_index(settings, out, ranks, say)
    assert settings.index is not None
    dataset = read_index(settings.index)
    check_left_out(dataset, say)
    if settings.folds is None:
        return settings, dataset
    index = _parted(dataset, settings.folds, out, ranks)
    return settings.model_copy(update={"index": index}), read_index(index)


def _check_network(config: str, settings: TrainConfig, dataset: Dataset) -> None:
    """Said before cases are read, which may take an hour."""
    try:
        check_network(settings, 1 + len(dataset.labels))
    except ConfigError as error:
        raise ConfigError(f"{config}: {error.message}", advice=error.advice) from error


def _with_index(settings: TrainConfig, out: Path, ranks: Ranks, say: Callable[[str], None]) -> TrainConfig:
    """The settings with an index of ours: the first rank computes phantoms or links another tool's data set."""
    folder = out / "data"
    if settings.index is not None:
        description, ours = locate(settings.index)
        if ours:
            return settings.model_copy(update={"index": description})
        named = description.resolve()
        folder = folder / (named.name if named.is_dir() else named.parent.name)
        if ranks.first:
            adopt(description, folder, say)
    elif ranks.first and settings.phantoms is not None:
        write_phantoms(folder, settings.phantoms)
    wait_for_all()
    return settings.model_copy(update={"index": folder / INDEX})


def _parted(dataset: Dataset, folds: FoldConfig, out: Path, ranks: Ranks) -> Path:
    """An index in which one fold validates and the others train."""
    dealt = deal_folds((case.patient for case in dataset.cases), folds.count)
    if len(dealt) < folds.count:
        reason = f"{len(dealt)} patients cannot be parted into {folds.count} folds."
        raise ConfigError(reason, advice="Take fewer folds.")
    folder = out / "data" / f"fold-{folds.number}-of-{folds.count}"
    if ranks.first:
        splits = {c.id: "validation" if dealt[c.patient] == folds.number else "train" for c in dataset.cases}
        write_subset(dataset, folder, splits)
    wait_for_all()
    return folder / INDEX


def _check_empty(cases: Sequence[TrainingCase], say: Callable[[str], None]) -> None:
    """A scan without a lesion may teach that, too; a mask that nobody drew, or data of nothing else, must not."""
    nothing = [case for case in cases if set(case.places) == {0}]
    if cases and len(nothing) == len(cases):
        raise DataError(
            "Every training mask is empty, or too small for spacing_mm: there is nothing to learn.", advice=CHECK
        )
    if empty := [case.id for case in nothing if case.known[1:].any()]:
        say(
            f"empty masks: {', '.join(empty)}: they teach that none of their organs is there; if nobody drew them, "
            "leave them out, or give them `contoured: []`"
        )


def _say_lost(dataset: Dataset, cases: Sequence[TrainingCase], say: Callable[[str], None]) -> None:
    """Organs that fell between the voxels of the training grid: nobody is taught that they are absent."""
    pairs = list(zip(dataset.of("train"), cases, strict=True))
    for organ, value in dataset.labels.items():
        if lost := [case.id for files, case in pairs if organ in files.contoured and not case.known[value]]:
            say(
                f"{organ} is too small for a voxel of spacing_mm in {len(lost)} of {len(pairs)} cases, {lost[0]} the "
                "first; it counts as unknown there"
            )


def _task(settings: TrainConfig, dataset: Dataset, out: Path, say: Callable[[str], None]) -> SegmentationTask:
    cache = CaseCache(settings.cache or out / "cache", dataset.labels, settings.spacing_mm)
    looked_at = dataset.of("validation") if settings.loop.validate_steps else ()
    cache.fill(everyones_share((*dataset.of("train"), *looked_at)))  # ranks share the work, and then the result
    wait_for_all()
    cases = list(cache.load(dataset.of("train")))
    say(f"{len(cases)} training cases")
    _say_lost(dataset, cases, say)
    _check_empty(cases, say)
    validation = cache.load(looked_at)
    sampler = PatchSampler(cases, settings, LabelTable.from_names(dataset.labels))
    return SegmentationTask(sampler, settings, list(validation))
