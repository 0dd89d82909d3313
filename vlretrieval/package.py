"""Retrieval models in folders, found by name, verified before use: the rules of medseg's shelf, another card.

A package is a folder with `model.json`, the weights as safetensors and the vocabulary; every file's SHA-256 stands on
the card. Packages are looked for in $VLRETRIEVAL_MODELS (folders, separated as in PATH), then among the shipped.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medseg.errors import ModelIntegrityError, UnknownModelError
from medseg.imaging.emit import emit_bytes, emit_text, sha256_file
from medseg.models.tensors import emit_tensors
from vlretrieval.model import VLModel

CARD, WEIGHTS, WORDS = "model.json", "weights.safetensors", "vocabulary.json"
SHIPPED = Path(__file__).parent / "packages"
DEFAULT = "ct-facts"


class RetrievalCard(BaseModel):
    """`model.json`. Unknown keys are errors.

    Attributes:
        segmenter: the medseg model whose organs the encoder was trained to see.
        organs: with vectors of their own, in the encoder's order.
        options: of `VLModel.small`.
        fusion: weight of each leg of a search, chosen on training studies.
        metrics: what was measured, on what.
        training: how it came to be.
        files: SHA-256 of every file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str
    version: str
    title: str
    description: str
    intended_use: str = "Research use only. Not a medical device."
    limits: list[str] = Field(default_factory=list)
    licence: str
    segmenter: str
    organs: list[str]
    options: dict[str, Any] = Field(default_factory=dict)
    embed_dim: int = Field(gt=0)
    fusion: dict[str, float] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def id(self) -> str:
        """name@version."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class RetrievalPackage:
    """A verified package and its model, ready to encode."""

    card: RetrievalCard
    model: VLModel
    folder: Path
    sha256: str

    @property
    def id(self) -> str:
        """name@version:digest, stamped into archives."""
        return f"{self.card.id}:{self.sha256[:12]}"


def shelves() -> list[Path]:
    """Folders that hold packages, in order of search."""
    own = [Path(part) for part in os.environ.get("VLRETRIEVAL_MODELS", "").split(os.pathsep) if part]
    return [*own, SHIPPED]


def write_package(folder: Path, model: VLModel, card: RetrievalCard, vocabulary: Path) -> RetrievalCard:
    """Write weights (matrices in half precision), vocabulary and card; returns the card with its hashes."""
    emit_tensors(folder / WEIGHTS, {name: _compact(tensor) for name, tensor in model.state_dict().items()})
    emit_bytes(folder / WORDS, vocabulary.read_bytes())
    files = {name: sha256_file(folder / name) for name in (WEIGHTS, WORDS)}
    return write_card(folder, card.model_copy(update={"files": files}))


def write_card(folder: Path, card: RetrievalCard) -> RetrievalCard:
    """Write `model.json`."""
    emit_text(folder / CARD, card.model_dump_json(indent=2) + "\n")
    return card


def _compact(tensor: Tensor) -> Tensor:
    return (tensor.to(torch.float16) if tensor.ndim > 1 and tensor.is_floating_point() else tensor).contiguous()


def load_package(name: str | Path = DEFAULT) -> RetrievalPackage:
    """A package by name, name@version or folder, with every hash checked; loaded once per process.

    Raises:
        UnknownModelError: nothing of that name is installed.
        ModelIntegrityError: a file is missing, altered, or does not fit the card.
    """
    folder = _find(str(name))
    return _loaded(folder, sha256_file(folder / CARD))


@lru_cache(maxsize=2)
def _loaded(folder: Path, sha256: str) -> RetrievalPackage:
    card = read_card(folder / CARD)
    for file, wanted in card.files.items():
        path = folder / file
        if Path(file).name != file or not path.is_file() or sha256_file(path) != wanted:
            raise ModelIntegrityError(f"Model {card.id}: {file} is missing or not the file that the card describes.")
    if not {WEIGHTS, WORDS} <= card.files.keys():
        raise ModelIntegrityError(f"Model {card.id}: its card lists no {WEIGHTS} or {WORDS}.")
    model = VLModel.small(tuple(card.organs), vocabulary=folder / WORDS, **_options(card))
    try:
        tensors = {key: tensor.float() for key, tensor in load_file(folder / WEIGHTS).items()}
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelIntegrityError(f"Model {card.id}: its weights do not fit its card.") from error
    if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
        raise ModelIntegrityError(f"Model {card.id}: weights that are not finite.")
    return RetrievalPackage(card, model.eval(), folder, sha256)


def _options(card: RetrievalCard) -> dict[str, Any]:
    options = dict(card.options)
    if "shape" in options:
        options["shape"] = tuple(options["shape"])
    return options


def read_card(path: Path) -> RetrievalCard:
    """Read `model.json`.

    Raises:
        ModelIntegrityError: not JSON, or keys missing, unknown or of a wrong type.
    """
    try:
        return RetrievalCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise ModelIntegrityError(f"{path.parent.name}/{path.name} is not the card of a retrieval model.") from error


def list_packages() -> list[RetrievalCard]:
    """Cards of all installed retrieval models; the first shelf wins."""
    cards: dict[str, RetrievalCard] = {}
    for shelf in shelves():
        for path in sorted(shelf.glob(f"*/{CARD}")):
            card = read_card(path)
            cards.setdefault(card.name, card)
    return list(cards.values())


def _find(name: str) -> Path:
    for shelf in shelves():
        for path in sorted(shelf.glob(f"*/{CARD}")):
            card = read_card(path)
            if name in (card.name, card.id):
                return path.parent.resolve()
    if (Path(name) / CARD).is_file():
        return Path(name).resolve()
    known = ", ".join(card.name for card in list_packages()) or "none"
    raise UnknownModelError(
        f"No retrieval model named {name!r}; installed: {known}.", advice="Give its name or folder."
    )
