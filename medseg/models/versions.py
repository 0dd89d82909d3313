"""Versions of models on a shelf: register, promote, roll back. No torch, no server: folders and one small file.

A shelf holds every version in a folder NAME@VERSION. `promoted.json` on it says, per name, which versions were in use
one after the other; a bare name means the last one. Without an entry it means the first folder of that name. Where
another shelf, or medseg itself, has a model of that name, the history begins with that one.
Whoever changes a shelf holds its lock from reading that file to writing it; reading alone needs none.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.errors import ConfigError, ModelIntegrityError, OutputError, UnknownModelError
from medseg.imaging.emit import emit_json, sha256_file
from medseg.models.store import (
    CARD,
    ELSEWHERE,
    PROMOTED,
    ModelPackage,
    find_on,
    load_model,
    promoted,
    read_card,
    shelves,
)
from medseg.runtime.lock import locked

LOCK = ".lock"
_PART = ".part-model-"


@dataclass(frozen=True)
class Version:
    """A version on a shelf, and whether its bare name means it."""

    id: str
    folder: Path
    current: bool


def own_shelf(shelf: Path | None) -> Path:
    """The shelf that is written to: the one given, or the first of $MEDSEG_MODELS.

    Raises:
        ConfigError: neither is there.
    """
    if shelf is None and len(shelves()) > 1:
        return shelves()[0]
    if shelf is None:
        raise ConfigError("No shelf for models.", advice="Give one with -o, or name one in $MEDSEG_MODELS.")
    return shelf


def versions_of(name: str, shelf: Path) -> list[Version]:
    """All versions of a model on a shelf, in order of their folders."""
    found = [(read_card(path), path.parent) for path in sorted(shelf.glob(f"*/{CARD}"))]
    same = [(card, folder) for card, folder in found if card.name == name]
    current = _current(name, shelf, [card.id for card, _ in same])
    return [Version(card.id, folder, card.id == current) for card, folder in same]


def _current(name: str, shelf: Path, ids: list[str]) -> str:
    chosen = promoted(shelf).get(name, [])
    return chosen[-1] if chosen else next(iter(ids), "")


def register(package: Path, shelf: Path) -> Version:
    """Copy a verified package to a shelf under NAME@VERSION; what a bare name means stays as it is.

    Raises:
        ModelIntegrityError: the package is damaged, or another one has that name and version, here or elsewhere.
        OutputError: it could not be copied, or the shelf not be locked.
    """
    source = load_model(package.resolve())
    if Path(source.card.id).name != source.card.id:
        raise ModelIntegrityError(f"{source.card.id!r} cannot be the name of a folder.", advice="Rename the model.")
    _make(shelf)
    with locked(shelf / LOCK):
        return _put(source, shelf)


@contextmanager
def new_place(shelf: Path, name: str, version: str) -> Iterator[Path]:
    """A folder to make a package in, under the shelf's lock; at the end it becomes `shelf/name`, whole or not at all.

    What the bare name means on the shelf stays as it is.

    Raises:
        ConfigError: no folder can have the name, one has it already, or that version of it stands on the shelf.
        OutputError: the shelf cannot be locked or written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,60}", name):
        raise ConfigError(f"{name!r} cannot be a model's name.", advice="Use letters, digits, dots and hyphens.")
    _make(shelf)
    with locked(shelf / LOCK):
        if (shelf / name).exists():
            raise ConfigError(f"{shelf / name} is there already.", advice="Choose another --name, or delete it.")
        others = versions_of(name, shelf)
        if any(other.id == f"{name}@{version}" for other in others):
            advice = "A version is never replaced: choose another --version or --name."
            raise ConfigError(f"{name}@{version} stands on {shelf} already.", advice=advice)
        _keep_meaning(name, shelf)
        with _becoming(shelf / name) as folder:
            yield folder


@contextmanager
def _becoming(target: Path) -> Iterator[Path]:
    """A folder of another name, renamed at the end: a failure leaves nothing of it, and a kill nothing in the way.

    The shelf's lock is held: nobody else makes one there.
    """
    for left in target.parent.glob(f"{_PART}*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=_PART, dir=target.parent) as name:
            inside = Path(name) / target.name  # two deep, where no shelf is searched for cards
            inside.mkdir()
            yield inside
            inside.rename(target)
    except OSError as error:
        raise OutputError(f"{target} could not be written: {error.strerror or error}.") from error


def _make(shelf: Path) -> None:
    try:
        shelf.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{shelf} could not be made: {error.strerror or error}.") from error


def _put(source: ModelPackage, shelf: Path) -> Version:
    card = source.card
    known = next((other for other in versions_of(card.name, shelf) if other.id == card.id), None)
    places = [None if known is None else known.folder, _elsewhere(card.id, shelf)]
    for place in filter(None, places):
        if sha256_file(place / CARD) != source.sha256:
            raise ModelIntegrityError(
                f"Another {card.id} stands on {place.parent}.",
                advice="A version is never replaced: give this one a new number (`version:` of the config).",
            )
    if known:
        return known
    _keep_meaning(card.name, shelf)
    folder = shelf / card.id
    _copy(source.folder, folder, [CARD, *card.files])
    return next(version for version in versions_of(card.name, shelf) if version.id == card.id)


def _keep_meaning(name: str, shelf: Path) -> None:
    """Write down what the bare name means, before a version comes that would change it."""
    if history := _history(name, shelf) or [ELSEWHERE] * (_elsewhere(name, shelf) is not None):
        _write(shelf, name, history)


def _elsewhere(name: str, shelf: Path) -> Path | None:
    """The folder that a name means where this shelf leaves it to the others."""
    others = [other for other in shelves() if other.resolve() != shelf.resolve()]
    return next(filter(None, (find_on(other, name) for other in others)), None)


def _copy(source: Path, target: Path, files: list[str]) -> None:
    """All files or none."""
    with _becoming(target) as inside:
        for file in files:
            shutil.copyfile(source / file, inside / file)
        load_model(inside.resolve())  # every hash, once more


def promote(model: str, shelf: Path) -> Version:
    """Let the bare name mean this version from now on.

    Args:
        model: NAME@VERSION.
        shelf: that it stands on.

    Raises:
        UnknownModelError: it does not stand there.
        ModelIntegrityError: it is damaged.
        OutputError: the shelf cannot be locked or written.
    """
    name = model.split("@")[0]
    known = versions_of(name, shelf)
    chosen = next((version for version in known if version.id == model), None)
    if chosen is None:
        listed = ", ".join(version.id for version in known) or "no version of it"
        raise UnknownModelError(f"{model} is not on {shelf}; there is {listed}.", advice="Register it first.")
    load_model(chosen.folder.resolve())
    with locked(shelf / LOCK):
        history = _history(name, shelf)
        if history[-1] != model:
            _write(shelf, name, [*history, model])
    return Version(model, chosen.folder, current=True)


def roll_back(name: str, shelf: Path) -> Version:
    """Let the bare name mean what it meant before the last promotion.

    Raises:
        UnknownModelError: nothing was promoted before, or what was in use then is gone.
        OutputError: the shelf cannot be locked or written.
    """
    with locked(shelf / LOCK):
        return _step_back(name, shelf)


def _step_back(name: str, shelf: Path) -> Version:
    history = promoted(shelf).get(name, [])
    if len(history) < 2:
        raise UnknownModelError(f"{name} was never promoted on {shelf}: there is nothing to go back to.", advice="")
    before = history[-2]
    chosen = _before(name, before, shelf)
    if chosen is None:
        raise UnknownModelError(f"{before or name}, which was in use before, is no longer there.")
    load_model(chosen.folder.resolve())
    _write(shelf, name, history[:-1])
    return replace(chosen, current=True)


def _before(name: str, before: str, shelf: Path) -> Version | None:
    """What an entry of the history stands for; None where that is gone."""
    if before != ELSEWHERE:
        return next((version for version in versions_of(name, shelf) if version.id == before), None)
    folder = _elsewhere(name, shelf)
    return None if folder is None else Version(read_card(folder / CARD).id, folder, current=False)


def _history(name: str, shelf: Path) -> list[str]:
    """What was in use so far; what is used without an entry counts as its beginning."""
    current = next((version.id for version in versions_of(name, shelf) if version.current), None)
    return promoted(shelf).get(name) or ([current] if current else [])


def _write(shelf: Path, name: str, history: list[str]) -> None:
    emit_json(shelf / PROMOTED, promoted(shelf) | {name: history})
