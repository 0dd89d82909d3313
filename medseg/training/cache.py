"""Prepared cases on the disk, shared by all ranks and runs: read into memory as a map, one copy for all processes.

An entry's name is a digest of everything that decides it: the bytes of scan and labels, which organs are known, the
grid, and the version of the preparation. What changes gets another name, so that a stale entry is never found; a
damaged one is made anew. Entries appear complete or not at all.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.errors import OutputError
from medseg.imaging.emit import sha256_file
from medseg.imaging.volume import Array
from medseg.models.tensors import emit_tensors
from medseg.training.cases import CaseFiles, TrainingCase, load_case

VERSION = 2  # count up whenever `load_case` makes something else of the same files
_TYPES = {"I16": np.int16, "U8": np.uint8, "BOOL": np.bool_}


class CaseCache:
    """Loads cases onto the training grid, and remembers them.

    Args:
        folder: where entries lie; may be shared by runs and ranks.
        labels: the dataset's label table.
        spacing_mm: the training grid.

    Attributes:
        computed: cases that this object had to prepare.
    """

    def __init__(self, folder: Path, labels: dict[str, int], spacing_mm: tuple[float, float, float]) -> None:
        self.folder, self.labels, self.spacing_mm = folder, labels, spacing_mm
        self.computed = 0

    def fill(self, cases: Sequence[CaseFiles]) -> None:
        """Prepare what is not there yet."""
        for _ in self.load(cases):
            pass

    def load(self, cases: Sequence[CaseFiles]) -> Iterator[TrainingCase]:
        """Cases in order, several at a time.

        Raises:
            InputError, DataError: as `load_case`.
        """
        with ThreadPoolExecutor(max_workers=2) as pool:
            yield from pool.map(self.load_one, cases)

    def load_one(self, case: CaseFiles) -> TrainingCase:
        """One case, from the disk where it is there and whole."""
        path = self.folder / f"{self.key(case)}.safetensors"
        found = _read(path, case.id)
        if found is not None:
            return found
        self.computed += 1
        prepared = load_case(case, self.labels, self.spacing_mm)
        try:
            _write(path, prepared)
        except OutputError:  # a full disk: the case stays in memory
            return prepared
        return _read(path, case.id) or prepared

    def key(self, case: CaseFiles) -> str:
        """Digest of all that decides the entry."""
        known = {organ: self.labels[organ] for organ in sorted(case.contoured)}
        parts = [VERSION, sha256_file(case.ct), sha256_file(case.label), sorted(self.labels.items()), known]
        return hashlib.sha256(json.dumps([*parts, list(self.spacing_mm)]).encode()).hexdigest()


def _write(path: Path, case: TrainingCase) -> None:
    arrays: dict[str, Array] = {"hu": case.hu, "labels": case.labels, "known": case.known}
    arrays |= {f"places.{value}": where for value, where in case.places.items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    emit_tensors(path, tensors, {"sha256": _digest(arrays)})


def _digest(arrays: dict[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape} {arrays[name].dtype}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _read(path: Path, name: str) -> TrainingCase | None:
    """The entry as maps of the file; None where there is none, or it is damaged."""
    try:
        arrays, sealed = _mapped(path)
        if sealed != _digest(arrays):
            return None
        places = {int(key.removeprefix("places.")): arrays[key] for key in arrays if key.startswith("places.")}
        ordered = dict(sorted(places.items(), key=lambda pair: (pair[0] == 0, pair[0])))
        return TrainingCase(name, arrays["hu"], arrays["labels"], np.array(arrays["known"]), ordered)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, struct.error):
        return None


def _mapped(path: Path) -> tuple[dict[str, Array], str]:
    """The arrays of a safetensors file, mapped and not copied: eight bytes of length, a JSON header, then the data."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    sealed = str(header.pop("__metadata__")["sha256"])
    # Not numpy.memmap: that keeps a descriptor open for every case, and a thousand are all that many systems allow.
    bytes_ = torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8).numpy()[8 + length :]
    bytes_.flags.writeable = False
    return {name: _view(bytes_, about) for name, about in header.items()}, sealed


def _view(content: Array, about: dict[str, Any]) -> Array:
    start, end = about["data_offsets"]
    return content[start:end].view(_TYPES[about["dtype"]]).reshape(about["shape"])
