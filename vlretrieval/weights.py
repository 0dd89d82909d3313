"""Pretrained weights of others: from folders on this machine alone, never by a pickle that runs code."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medseg.errors import ModelIntegrityError, UnknownModelError
from medseg.models.importers.weights import pick_tensors, read_checkpoint, without_prefix

FOLDER = "VLRETRIEVAL_WEIGHTS"
log = logging.getLogger(__name__)


def find_weights(name: str, given: str | Path | None) -> Path | None:
    """Where the weights called `name` lie: `given`, or a file or folder of that name in $VLRETRIEVAL_WEIGHTS.

    Nothing is ever downloaded. None where nobody gave any: then the network starts from random numbers, which
    the log says.

    Raises:
        UnknownModelError: `given` is not there.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.exists():
            raise UnknownModelError(f"There are no weights at {path}.", advice=advice(name))
        return path
    shelf = os.environ.get(FOLDER)
    found = [path for path in _places(Path(shelf), name) if path.exists()] if shelf else []
    if not found:
        log.warning("%s starts from random numbers: no pretrained weights were given. %s", name, advice(name))
    return found[0] if found else None


def _places(shelf: Path, name: str) -> list[Path]:
    return [shelf / name, *(shelf / f"{name}{ending}" for ending in (".safetensors", ".pth", ".pt"))]


def advice(name: str) -> str:
    """What to put where."""
    return f"Put {name} (Hugging Face layout, or .safetensors) into a folder, and name it by weights= or ${FOLDER}."


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or PyTorch file, read without running anything in it.

    Raises:
        ModelIntegrityError: the .safetensors is damaged.
        ModelImportError: the PyTorch file is damaged, or holds more than tensors.
    """
    if path.suffix != ".safetensors":
        return without_prefix(pick_tensors(read_checkpoint(path), path, ("state_dict", "model")))
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelIntegrityError(f"{path.name} is damaged or no safetensors.", advice=advice(path.stem)) from error
