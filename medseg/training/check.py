"""`medseg train check`: everything that can be wrong with a data set, found before an hour is spent.

A fault is an error where training on the case would teach something false or could not start, a warning where a person
should look.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np

from medseg.errors import MedsegError
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.imaging.volume import Array, Volume, reorient
from medseg.labels import LabelTable
from medseg.training.cases import SPLITS, CaseFiles, Dataset, how_grids_differ
from medseg.training.check_outliers import strange_densities, strange_sizes, touches_end
from medseg.training.lookalikes import told, unnamed_sides

Level = Literal["error", "warning"]
FAR_MM = 25.0  # organs farther apart than this in most cases have an order that anatomy keeps


@dataclass(frozen=True)
class Fault:
    """What is wrong with a case."""

    level: Level
    case: str
    text: str


@dataclass(frozen=True)
class CaseFacts:
    """What was seen of a case that could be read. Centres are RAS mm; `pixels` is the hash of its voxels.

    `median_hu` is that inside each organ; `cut`: organs that reach the scan's first or last axial slice.
    """

    id: str
    split: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    hu_range: tuple[float, float, float]
    volumes_ml: Mapping[str, float]
    median_hu: Mapping[str, float]
    centres_mm: Mapping[str, Array]
    pixels: str
    cut: frozenset[str]

    def to_json(self) -> dict[str, Any]:
        """What the JSON report holds."""
        return {
            "id": self.id,
            "split": self.split,
            "shape": list(self.shape),
            "spacing_mm": [round(mm, 4) for mm in self.spacing_mm],
            "orientation": self.orientation,
            "hu_1_50_99": [round(hu, 1) for hu in self.hu_range],
            "volumes_ml": {name: round(ml, 3) for name, ml in self.volumes_ml.items()},
            "median_hu": {name: round(hu, 1) for name, hu in self.median_hu.items()},
        }


@dataclass(frozen=True)
class CheckReport:
    """All faults, and the facts of all cases that could be read."""

    faults: tuple[Fault, ...]
    facts: tuple[CaseFacts, ...]
    labels: LabelTable
    cases: tuple[CaseFiles, ...] = field(repr=False, default=())

    @property
    def errors(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.level == "error")


def check_dataset(dataset: Dataset, progress: Callable[[str], None] = lambda line: None) -> CheckReport:
    """Read every case and say what is wrong with it, alone and among the others."""
    labels = LabelTable.from_names(dataset.labels)
    faults = [Fault("error" if study.fault else "warning", study.id, study.reason) for study in dataset.left_out]
    facts: list[CaseFacts] = []
    for number, case in enumerate(dataset.cases, 1):
        found, seen = _check_case(case, labels)
        faults += found
        facts += [seen] if seen else []
        progress(f"checked {number}/{len(dataset.cases)}  {case.id}")
    faults += _splits(dataset) + _doubles(facts) + _sides(facts, labels)
    faults += _unnamed(facts, labels) + _order(facts) + _sizes(facts) + _densities(facts)
    return CheckReport(tuple(faults), tuple(facts), labels, dataset.cases)


def _check_case(case: CaseFiles, labels: LabelTable) -> tuple[list[Fault], CaseFacts | None]:
    try:
        volume = read_nifti(case.ct)
        mask, geometry = read_label_map(case.label)
    except MedsegError as error:
        return [Fault("error", case.id, str(error))], None
    faults = [Fault("warning", case.id, text) for text in dict.fromkeys([*case.notes, *map(str, volume.findings)])]
    if not geometry.matches(volume.geometry):
        return [*faults, Fault("error", case.id, how_grids_differ(volume.geometry, geometry))], None
    faults += _values(case, mask, labels)
    return faults, _facts(case, volume, mask, labels)


def _values(case: CaseFiles, mask: Array, labels: LabelTable) -> list[Fault]:
    counts = {int(value): int(n) for value, n in zip(*np.unique(mask, return_counts=True), strict=True) if value}
    names = {label.value: label.name for label in labels}
    faults = []
    if strangers := sorted(set(counts) - set(names)):
        faults.append(Fault("error", case.id, f"label values {strangers} are not in the label table."))
    if not counts and not case.contoured:
        faults.append(Fault("warning", case.id, "nothing is contoured, so that nothing is learned from it."))
    elif not counts:
        faults.append(Fault("error", case.id, "the mask is empty."))
    else:
        empty = [organ for organ in case.contoured if labels[organ].value not in counts]
        faults += [Fault("warning", case.id, f"{organ}: said to be contoured, and has no voxel.") for organ in empty]
    drawn = [names[value] for value in counts if value in names and names[value] not in case.contoured]
    faults += [Fault("warning", case.id, f"{organ}: has voxels, but is not listed as contoured.") for organ in drawn]
    return faults


def _facts(case: CaseFiles, volume: Volume, mask: Array, labels: LabelTable) -> CaseFacts:
    ornt, grid = volume.geometry.to_canonical, volume.geometry.canonical()
    hu, organs = reorient(volume.hu, ornt), reorient(mask, ornt)
    volumes, densities, centres, cut = {}, {}, {}, set()
    for label in labels:
        where = np.argwhere(organs == label.value)
        if len(where):
            volumes[label.name] = len(where) * volume.geometry.voxel_ml
            densities[label.name] = float(np.median(hu[tuple(where.T)]))
            centres[label.name] = grid.affine[:3, :3] @ where.mean(axis=0) + grid.affine[:3, 3]
            cut |= {label.name} if touches_end(where, organs.shape[2]) else set()
    low, middle, high = (float(q) for q in np.percentile(hu[hu > -900] if (hu > -900).any() else hu, (1, 50, 99)))
    return CaseFacts(
        case.id,
        case.split,
        volume.geometry.shape,
        volume.spacing_mm,
        volume.geometry.orientation,
        (low, middle, high),
        volumes,
        densities,
        centres,
        hashlib.sha256(np.ascontiguousarray(hu, dtype=np.float32).data).hexdigest(),
        frozenset(cut),
    )


def _splits(dataset: Dataset) -> list[Fault]:
    faults = []
    if not dataset.of("train"):
        faults.append(Fault("error", "", "No case has the split `train`."))
    if not dataset.of("validation"):
        faults.append(Fault("warning", "", "No case has the split `validation`: the model will have no scores."))
    idle = [case for case in dataset.cases if case.split not in SPLITS]
    text = "its split {!r} is none of {}: neither trained on nor scored."
    faults += [Fault("warning", case.id, text.format(case.split, ", ".join(SPLITS))) for case in idle]
    faults += _patients(dataset)
    contoured = {organ for case in dataset.of("train") for organ in case.contoured}
    for organ in sorted(set(dataset.labels) - contoured):
        faults.append(Fault("error", "", f"{organ} is contoured in no training case."))
    return faults


def _patients(dataset: Dataset) -> list[Fault]:
    """One patient on both sides of the split: the scores would be those of a face that is known."""
    sides: dict[str, list[CaseFiles]] = defaultdict(list)
    for case in dataset.cases:
        sides[case.patient].append(case)
    text = "one patient stands in several splits: {}. Scores would be better than they are."
    return [
        Fault("error", cases[0].id, text.format(", ".join(f"{case.id} ({case.split})" for case in cases)))
        for cases in sides.values()
        if len({case.split for case in cases}) > 1
    ]


def _doubles(facts: Sequence[CaseFacts]) -> list[Fault]:
    """The same scan under two names: across the split it makes scores worthless."""
    alike: dict[str, list[CaseFacts]] = defaultdict(list)
    for fact in facts:
        alike[fact.pixels].append(fact)
    faults = []
    for group in alike.values():
        if len(group) > 1:
            others = ", ".join(f"{fact.id} ({fact.split})" for fact in group[1:])
            level: Level = "error" if len({fact.split for fact in group}) > 1 else "warning"
            faults.append(Fault(level, group[0].id, f"({group[0].split}) is the same scan as {others}."))
    return faults


def _sides(facts: Sequence[CaseFacts], labels: LabelTable) -> list[Fault]:
    """A right organ on the left: labels swapped, or a file that is mirrored."""
    names = {label.value: label.name for label in labels}
    faults = []
    for fact in facts:
        for right, left in ((names[a], names[b]) for a, b in labels.mirror_pairs()):
            if {left, right} <= fact.centres_mm.keys() and fact.centres_mm[right][0] < fact.centres_mm[left][0]:
                faults.append(Fault("error", fact.id, f"{right} lies to the left of {left}: swapped, or mirrored."))
    return faults


def _unnamed(facts: Sequence[CaseFacts], labels: LabelTable) -> list[Fault]:
    """Sides that names do not say are swapped in every mirrored patch."""
    places = [{name: (fact.centres_mm[name], fact.volumes_ml[name]) for name in fact.centres_mm} for fact in facts]
    return [Fault("warning", "", told([pair])) for pair in unnamed_sides(places, labels)]


def _order(facts: Sequence[CaseFacts]) -> list[Fault]:
    """A case that stands on its head or is turned: most organs lie the other way round than in the other cases."""
    organs = sorted({organ for fact in facts for organ in fact.centres_mm})
    if len(organs) < 2:
        return []
    nowhere = np.full(3, np.nan)
    centres = np.array([[fact.centres_mm.get(organ, nowhere) for organ in organs] for fact in facts])
    faults: list[Fault] = []
    for axis, word in ((1, "front to back"), (2, "upside down")):
        for case in _turned(centres[..., axis]):
            text = f"its organs lie {word}, compared with the other cases: wrong orientation or labels?"
            faults.append(Fault("warning", facts[case].id, text))
    return faults


def _turned(places_mm: Array) -> list[int]:
    """Cases in which most pairs of organs lie the other way round than usual; places_mm is [cases, organs]."""
    against, votes = np.zeros(len(places_mm), int), np.zeros(len(places_mm), int)
    for a, b in combinations(range(places_mm.shape[1]), 2):
        ways = places_mm[:, b] - places_mm[:, a]
        there = np.isfinite(ways)
        usual = float(np.median(ways[there])) if there.sum() > 2 else 0.0
        if abs(usual) >= FAR_MM:
            votes += there
            against += there & (ways * usual < 0) & (np.abs(ways) > FAR_MM / 2)
    return [int(case) for case in np.flatnonzero(against > votes / 2)]


def _sizes(facts: Sequence[CaseFacts]) -> list[Fault]:
    """A contour that was left half drawn, or given another organ's name, has another size than it has elsewhere."""
    whole = [{organ: ml for organ, ml in fact.volumes_ml.items() if organ not in fact.cut} for fact in facts]
    text = "{}: {:.1f} ml, where the median of whole ones is {:.1f} ml: cut off, or another structure?"
    return [Fault("warning", facts[n].id, text.format(*found)) for n, *found in strange_sizes(whole)]


def _densities(facts: Sequence[CaseFacts]) -> list[Fault]:
    """A contour that lies beside its organ, or is another patient's: bone or air where tissue should be."""
    text = "{}: {:.0f} HU inside its contour (median), where it is {:.0f} HU in most cases: drawn beside the organ?"
    return [
        Fault("warning", facts[n].id, text.format(*found))
        for n, *found in strange_densities([fact.median_hu for fact in facts])
    ]
