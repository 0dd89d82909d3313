"""Reference volumes for the page: see `medseg.results.references`."""

from __future__ import annotations

from functools import lru_cache

from medseg.errors import MedsegError
from medseg.models.card import ModelCard
from medseg.models.store import load_model
from medseg.results.references import Reference as Reference
from medseg.results.references import reference_for as _reference_for


def reference_for(organ: str, model: str, version: str) -> Reference | None:
    """The reference of an organ, with the training patients of that very model where nothing is published."""
    return _reference_for(organ, _card(model, version))


@lru_cache(maxsize=16)
def _card(model: str, version: str) -> ModelCard | None:
    try:
        card = load_model(model).card
    except MedsegError:
        return None
    return card if card.version == version else None
