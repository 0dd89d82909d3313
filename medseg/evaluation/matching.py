"""Which prediction belongs to which reference: by name, nothing dropped, nothing guessed."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DataError

_EXTENSION = re.compile(r"\.nii(\.gz)?$")
_MASK_SUFFIX = re.compile(r"_(label|labels|mask|seg|segmentation|pred|prediction)$")
_SCAN_SUFFIX = re.compile(r"_(ct|image|img)$")


@dataclass(frozen=True)
class MaskFile:
    """A label map and the name of its case (ID for ID, ID_ct, ID_label ...)."""

    case: str
    path: Path


@dataclass(frozen=True)
class Matches:
    """Pairs in the order of the references; `None` where a reference has no prediction."""

    pairs: tuple[tuple[MaskFile, MaskFile | None], ...]
    predictions_without_reference: tuple[str, ...]

    @property
    def references_without_prediction(self) -> tuple[str, ...]:
        return tuple(reference.case for reference, prediction in self.pairs if prediction is None)


def case_name(name: str) -> str:
    """The case that a file or result folder belongs to: its name without extension and role."""
    stem = _EXTENSION.sub("", name)
    return _SCAN_SUFFIX.sub("", _MASK_SUFFIX.sub("", stem))


def find_masks(place: Path) -> tuple[MaskFile, ...]:
    """Label maps of a file, one result folder, a folder of those, or a flat folder, sorted by case.

    Scans (ID_ct) that lie beside masks (ID_label) are left out.

    Raises:
        DataError: nothing there, or two masks of one case.
    """
    if not place.exists():
        raise DataError(f"There is nothing at {place}.")
    masks = [MaskFile(case_name(place.name), place)] if place.is_file() else _in_folder(place)
    if not masks:
        raise DataError(
            f"No masks in {place}.", advice="Give a .nii.gz file, a folder of them, or a folder of result folders."
        )
    _refuse_doubles(masks)
    return tuple(sorted(masks, key=lambda mask: _natural(mask.case)))


def _in_folder(folder: Path) -> list[MaskFile]:
    own = folder / "mask.nii.gz"
    if own.is_file():
        return [MaskFile(case_name(folder.resolve().name), own)]
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    results = [entry / "mask.nii.gz" for entry in entries if (entry / "mask.nii.gz").is_file()]
    flat = [entry for entry in entries if entry.is_file() and _EXTENSION.search(entry.name)]
    named = [(path.parent.name, path) for path in results] + [(path.name, path) for path in _without_scans(flat)]
    return [MaskFile(case_name(name), path) for name, path in named]


def _without_scans(files: list[Path]) -> list[Path]:
    stems = {file: _EXTENSION.sub("", file.name) for file in files}
    masks = {case_name(stem) for stem in stems.values() if not _SCAN_SUFFIX.search(stem)}
    labelled = any(_MASK_SUFFIX.search(stem) for stem in stems.values())
    # A mask may carry its scan's own name (ID_ct), but not where masks are called ID_label or ID lies beside it.
    return [
        file
        for file, stem in stems.items()
        if not (_SCAN_SUFFIX.search(stem) and (labelled or case_name(stem) in masks))
    ]


def _refuse_doubles(masks: list[MaskFile]) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for mask in masks:
        places[mask.case].append(str(mask.path))
    for case, found in places.items():
        if len(found) > 1:
            raise DataError(f"Case {case} has several masks: {', '.join(sorted(found))}.", advice="Keep one of them.")


def match(predictions: tuple[MaskFile, ...], references: tuple[MaskFile, ...], *, one_each: bool = False) -> Matches:
    """Pair by case name; with `one_each` the user named one mask and one reference, a pair whatever their names.

    Raises:
        DataError: no name fits, or one reference fits several predictions.
    """
    if one_each:
        return Matches(((references[0], predictions[0]),), ())
    exact = {mask.case: mask for mask in predictions}
    left = [mask for mask in predictions if mask.case not in {reference.case for reference in references}]
    pairs = [(reference, exact.get(reference.case) or _by_longer_name(reference, left)) for reference in references]
    used = {found.path for _, found in pairs if found}
    if not used:
        raise DataError(
            f"No prediction fits a reference by name: {_some(predictions)} against {_some(references)}.",
            advice="Name them alike: ID, ID_ct, ID_label or ID_mask.",
        )
    return Matches(tuple(pairs), tuple(mask.case for mask in predictions if mask.path not in used))


def is_one_mask(place: Path) -> bool:
    """Whether a path names one mask: a file, or one result folder."""
    return place.is_file() or (place / "mask.nii.gz").is_file()


def _by_longer_name(reference: MaskFile, left: list[MaskFile]) -> MaskFile | None:
    """A result named PARENT__ID (names collided) or ID_0000 (first channel, as nnU-Net names scans)."""
    fitting = [mask for mask in left if mask.case.split("__")[-1].removesuffix("_0000") == reference.case]
    if len(fitting) > 1:
        listed = ", ".join(mask.case for mask in fitting)
        raise DataError(f"Case {reference.case} fits several predictions: {listed}.", advice="Keep one of them.")
    return fitting[0] if fitting else None


def _some(masks: tuple[MaskFile, ...]) -> str:
    """A few of their names, and where they lie."""
    place = os.path.commonpath([mask.path.parent for mask in masks]) if masks else ""
    return ", ".join(mask.case for mask in masks[:3]) + (" ..." if len(masks) > 3 else "") + f" in {place}"


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
