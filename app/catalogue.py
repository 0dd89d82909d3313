"""The installed models as the page shows them, and the shelf that takes new ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import medseg
from app.results import Colour
from app.studies import Problem, Refused
from medseg.errors import MedsegError
from medseg.labels import LabelTable
from medseg.models.card import ModelCard
from medseg.models.store import shelves

_FIRST = "head-neck-oar"


@dataclass(frozen=True)
class Score:
    """How an organ was found on the validation scans."""

    organ: str
    cases: int
    dice: float | None
    surface_dice: float | None
    misses: int


@dataclass(frozen=True)
class Model:
    """An installed model, in words and figures."""

    name: str
    version: str
    title: str
    description: str
    field: str
    intended_use: str
    limits: tuple[str, ...]
    licence: str
    organs: tuple[tuple[str, Colour], ...]
    scores: tuple[Score, ...]
    scored_on: str
    mean_dice: float | None
    sources: tuple[str, ...]
    learned: bool
    variants: tuple[str, ...]


def models() -> list[Model]:
    """All installed models, the default one first.

    Raises:
        Refused: a model package is damaged.
    """
    try:
        cards = medseg.list_models()
    except MedsegError as error:
        raise Refused(Problem(error.message, error.advice, code=type(error).__name__)) from error
    return sorted(map(_model, cards), key=lambda model: (model.name != _FIRST, model.name))


def _model(card: ModelCard) -> Model:
    rows = card.metrics.get("organs", {})
    scores = (
        Score(organ, row.get("n", 0), row.get("dice"), row.get("surface_dice"), row.get("misses", 0))
        for organ, row in rows.items()
    )
    return Model(
        name=card.name,
        version=card.version,
        title=card.title,
        description=card.description,
        field=card.field_of_view,
        intended_use=card.intended_use,
        limits=tuple(card.limits),
        licence=card.licence,
        organs=tuple((label.name, label.colour) for label in LabelTable.from_json(card.labels)),
        scores=tuple(scores),
        scored_on=str(card.metrics.get("data", "")),
        mean_dice=card.metrics.get("mean_dice"),
        sources=tuple(card.training.get("sources", ())),
        learned=card.kind == "network",
        variants=tuple(f"{v.precision} ({v.backend})" for v in card.variants),
    )


def own_shelf() -> Path:
    """Where imported models go: the first folder of $MEDSEG_MODELS, else one in the visitor's home."""
    own = shelves()[:-1]  # the last one ships with medseg
    return own[0] if own else Path("~/.local/share/medseg/models").expanduser()


def put_on_shelf(shelf: Path) -> None:
    """Let this server find what lies on a shelf from now on, and every process that it starts later."""
    known = [part for part in os.environ.get("MEDSEG_MODELS", "").split(os.pathsep) if part]
    if str(shelf) not in known:
        os.environ["MEDSEG_MODELS"] = os.pathsep.join([*known, str(shelf)])
