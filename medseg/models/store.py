"""The shelf: model packages in folders, found by name, verified before use. No torch here.

A package is a folder with `model.json` (the card) and the files that the card lists with
their SHA-256. Packages are looked for in $MEDSEG_MODELS (folders, separated as in PATH),
then among those that ship with medseg.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from medseg.errors import ModelIntegrityError, UnknownModelError
from medseg.imaging.emit import sha256_file
from medseg.models.card import ModelCard

CARD = "model.json"
WEIGHTS = "weights.safetensors"
PROMOTED = "promoted.json"
SHIPPED = Path(__file__).parent / "packages"
ELSEWHERE = ""  # in a shelf's history of a name: what the shelves after it mean


@dataclass(frozen=True)
class ModelPackage:
    """A verified package: its card and its folder."""

    card: ModelCard
    folder: Path

    @property
    def sha256(self) -> str:
        """Digest of the card, which holds the digests of all other files."""
        return sha256_file(self.folder / CARD)

    def file(self, name: str) -> Path:
        """A file of the package.

        Raises:
            ModelIntegrityError: the card does not list it, so nobody vouches for its bytes.
        """
        if name not in self.card.files:
            raise ModelIntegrityError(f"Model {self.card.id}: its card lists no {name}.")
        return self.folder / name


def shelves() -> list[Path]:
    """Folders that hold packages, in order of search."""
    own = [Path(part) for part in os.environ.get("MEDSEG_MODELS", "").split(os.pathsep) if part]
    return [*own, SHIPPED]


def promoted(shelf: Path) -> dict[str, list[str]]:
    """Per name, which versions (NAME@VERSION) were put to use one after the other; the last one counts.

    Raises:
        ModelIntegrityError: the shelf's file is damaged.
    """
    path = shelf / PROMOTED
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): [str(version) for version in history] for name, history in found.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelIntegrityError(f"{path} is damaged.", advice="Delete it and promote the versions again.") from error


def _on(shelf: Path) -> list[tuple[ModelCard, Path]]:
    """Cards and folders on a shelf, those that were promoted first."""
    chosen = {history[-1] for history in promoted(shelf).values() if history}
    found = [(read_card(path), path.parent) for path in sorted(shelf.glob(f"*/{CARD}"))]
    return sorted(found, key=lambda one: one[0].id not in chosen)


def list_models() -> list[ModelCard]:
    """Cards of all installed models, by name: of several versions the promoted one; the first shelf wins.

    Damaged cards raise.

    Raises:
        ModelIntegrityError: a card cannot be read.
    """
    cards: dict[str, ModelCard] = {}
    for shelf in shelves():
        history = promoted(shelf)
        for card, _ in _on(shelf):
            if history.get(card.name, [])[-1:] != [ELSEWHERE]:
                cards.setdefault(card.name, card)
    return sorted(cards.values(), key=lambda card: card.name)


def load_model(name: str | Path) -> ModelPackage:
    """A package by name, name@version or folder, with every hash checked.

    A bare name means an installed model first (of several versions the promoted one, see `versions`), and only then a
    folder of that name.

    Raises:
        UnknownModelError: nothing of that name is installed.
        ModelIntegrityError: a file is missing, altered, or lies outside the package; or the promoted version is gone.
    """
    folder = _find(str(name))
    card = read_card(folder / CARD)
    for file, wanted in card.files.items():
        _verify(folder, file, wanted)
    return ModelPackage(card, folder)


def read_card(path: Path) -> ModelCard:
    """Read `model.json`.

    Raises:
        ModelIntegrityError: not JSON, or keys missing, unknown or of a wrong type.
    """
    try:
        return ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise ModelIntegrityError(f"{path.parent.name}/{path.name} is not a model card: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _find(name: str) -> Path:
    here = Path(name)
    is_package = name != "" and (here / CARD).is_file()
    if is_package and here.name != name:
        return here
    for shelf in shelves():
        if found := find_on(shelf, name):
            return found
    if is_package:
        return here
    inner = here / "package"
    if name != "" and (inner / CARD).is_file():  # the folder of a training
        raise UnknownModelError(f"{here} holds no {CARD}; did you mean {inner}?", advice="")
    known = ", ".join(card.name for card in list_models()) or "none"
    raise UnknownModelError(f"No model named {name!r}; installed: {known}.")


def find_on(shelf: Path, name: str) -> Path | None:
    """The folder on a shelf that a name or NAME@VERSION means; None where the shelf leaves that to others.

    Raises:
        ModelIntegrityError: the promoted version is gone, or a card cannot be read.
    """
    history = promoted(shelf).get(name, [])
    if history[-1:] == [ELSEWHERE]:
        return None
    for card, folder in _on(shelf):
        if card.id == history[-1] if history else name in (card.name, card.id):
            return folder
    if history:
        raise ModelIntegrityError(
            f"{history[-1]}, which {name} means on {shelf}, is gone.",
            advice="Put it back, or promote another version.",
        )
    return None


def _verify(folder: Path, file: str, wanted: str) -> None:
    path = folder / file
    if Path(file).name != file:
        raise ModelIntegrityError(f"Model {folder.name}: {file!r} does not name a file of the package itself.")
    if not path.is_file():
        raise ModelIntegrityError(f"Model {folder.name}: {file} is missing.")
    if sha256_file(path) != wanted:
        raise ModelIntegrityError(f"Model {folder.name}: {file} is not the file that the card describes.")
