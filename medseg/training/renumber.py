"""Labels 1, 2, 3 ... in place of a data set's own numbers, where these have gaps: a network has no spare channels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medseg.errors import DataError
from medseg.imaging.nifti import read_label_map, write_label_map


def compact(labels: Mapping[str, int]) -> dict[int, int]:
    """The data set's value -> the network's: the same order without gaps."""
    return {old: new for new, old in enumerate(sorted(labels.values()), 1)}


def write_renumbered(name: str, source: Path, target: Path, numbers: Mapping[int, int]) -> None:
    """The label map `source` with other values, on the same grid; as old as `source`, by which `is_of` knows it.

    Args:
        name: of the case, for errors.
        source: label map in NIfTI.
        target: where the new one goes; a link there is replaced, not followed.
        numbers: value -> new value, of all but the background.

    Raises:
        InputError: `source` cannot be read.
        DataError: it holds a value that `numbers` lacks.
        OutputError: `target` could not be written.
    """
    labels, geometry = read_label_map(source)
    if strangers := sorted({int(value) for value in np.unique(labels)} - {0, *numbers}):
        raise DataError(f"Case {name}: label values {strangers} are not in the label table.")
    table = np.zeros(max(numbers) + 1, np.uint8)
    table[list(numbers)] = list(numbers.values())
    write_label_map(target, table[labels], geometry)
    os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))


def is_of(source: Path, target: Path) -> bool:
    """Whether `target` was written from `source` as it is now."""
    return target.is_file() and not target.is_symlink() and target.stat().st_mtime_ns == source.stat().st_mtime_ns
