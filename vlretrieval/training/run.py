"""One config -> a trained retrieval model, judged on studies that it has not seen, as a package."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError
from medseg.runtime.provenance import now, versions
from medseg.training.checkpoint import LAST
from medseg.training.trainer import Trainer
from vlretrieval.model import VLModel
from vlretrieval.package import RetrievalCard, write_package
from vlretrieval.text_encoder import VOCABULARY
from vlretrieval.training.config import RetrievalConfig, load_config
from vlretrieval.training.data import load_studies
from vlretrieval.training.judge import judge
from vlretrieval.training.studies import TrainingStudy
from vlretrieval.training.task import ContrastiveTask

_say = partial(print, flush=True)  # a log file shows a long run as it goes


def train_model(
    config: str | Path,
    out: Path,
    *,
    resume: bool = False,
    overrides: dict[str, Any] | None = None,
    report: Callable[[str], None] = _say,
) -> Path:
    """Train, judge and package a model.

    Args:
        config: YAML file or name of a preset.
        out: run folder.
        resume: go on from its checkpoint.
        overrides: settings that win over the config's.
        report: gets a line of text now and then.

    Returns:
        Folder of the package.

    Raises:
        ConfigError: a bad setting, or a run that stands there already.
        DataError: data that do not fit together.
        InputError: a scan that cannot be used.
    """
    settings = load_config(config, overrides)
    if (out / LAST).is_file() and not resume:
        raise ConfigError(f"{out} holds a run already.", advice="Go on with --resume, or choose another folder.")
    studies = load_studies(settings, settings.splits, out / "views", report)
    held = load_studies(settings, settings.held_out, out / "views", report)
    report(f"{len(studies)} studies to learn from, {len(held)} to judge by")
    task = ContrastiveTask(studies, settings, partial(judge, studies=held))
    trainer = Trainer(task, settings.loop, out, progress=lambda event: report(event.message))
    trainer.resume()
    model: VLModel = trainer.run().model  # type: ignore[assignment]
    figures = {name: round(value, 4) for name, value in judge(model, held).items()}
    write_package(out / "package", model, _card(settings, studies, figures, judges=model.judges), VOCABULARY)
    report(", ".join(f"{name} {value:g}" for name, value in figures.items()) or "nothing to judge by")
    return out / "package"


def _card(
    settings: RetrievalConfig, studies: list[TrainingStudy], figures: dict[str, float], *, judges: bool
) -> RetrievalCard:
    options = settings.model
    shape = (options.text_width, options.text_layers, max(1, options.text_width // 32), 4 * options.text_width)
    return RetrievalCard(
        name=settings.name,
        version=settings.version,
        title=settings.title or settings.name,
        description=settings.description,
        limits=list(settings.limits),
        licence=settings.licence,
        segmenter=settings.segmenter,
        organs=list(options.organs),
        options={"volume": options.volume, "slices": options.slices, "judges": judges, "shape": shape},
        embed_dim=256,
        metrics={"splits": list(settings.held_out)} | figures,
        training={
            "created": now(),
            "studies": len(studies),
            "splits": list(settings.splits),
            "sources": list(settings.sources),
            "seed": settings.loop.seed,
            "max_steps": settings.loop.max_steps,
            "losses": dict(settings.losses.weights),
            "versions": versions(),
        },
    )
