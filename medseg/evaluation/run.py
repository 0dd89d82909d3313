"""`medseg evaluate`: folders of masks against folders of references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg.errors import DataError
from medseg.evaluation.arrays import OrganScore, evaluate_arrays
from medseg.evaluation.matching import MaskFile, Matches, find_masks, is_one_mask, match
from medseg.evaluation.policy import (
    DEFAULT_TOLERANCE_MM,
    OPEN_ENDED,
    EmptyPolicy,
    Settings,
    TolerancesMm,
    refuse_unknown,
)
from medseg.evaluation.scorecard import Scorecard
from medseg.evaluation.tables import ReferenceIndex, find_index, read_labels, read_reference_index, table_beside
from medseg.imaging.nifti import read_label_map
from medseg.imaging.volume import Array, Geometry
from medseg.runtime.progress import Progress, ProgressCallback


def evaluate(
    predictions: Path,
    references: Path,
    out: Path | None = None,
    *,
    index: Path | None = None,
    organs: Sequence[str] | None = None,
    within_contoured: Sequence[str] | None = (),
    margin_slices: int = 1,
    tolerance_mm: TolerancesMm = DEFAULT_TOLERANCE_MM,
    labels: Path | Mapping[str, int] | None = None,
    policy: EmptyPolicy | None = None,
    progress: ProgressCallback | None = None,
    matches: Matches | None = None,
) -> Scorecard:
    """Score masks against references.

    Args:
        predictions: a mask, a result folder, a folder of result folders, or a flat folder of NIfTI label maps.
        references: a reference, or a flat folder of them (ID, ID_label, ...).
        out: folder for scores.csv, scores.json and plot.png; nothing is written where None.
        index: dataset index with the labels and, of each case, the contoured organs and the patient; where None,
            `index.json` in the references' folder or one level up is used if it is there.
        organs: score only these.
        within_contoured: organs that are scored within their contoured slices only; the plain figure stands beside.
            None: those of `OPEN_ENDED` that the references know.
        margin_slices: slices added at both ends of that window.
        tolerance_mm: surface Dice tolerance, or one for each named organ (5 mm for the others).
        labels: the references' label table, or a JSON file of it.
        policy: rules for empty masks.
        progress: called before each case.
        matches: which mask belongs to which reference, where that is known; names decide where None.

    Raises:
        DataError: nothing matches, a grid differs, a label table or index does not fit. Names the case.
        ConfigError: an organ that the references do not know, or a tolerance that is not positive.
    """
    if matches is None:
        one_each = is_one_mask(predictions) and is_one_mask(references)
        matches = match(find_masks(predictions), find_masks(references), one_each=one_each)
    index = index or find_index(references)
    names = _names(matches, index, labels)
    scoped = [organ for organ in OPEN_ENDED if organ in names.table] if within_contoured is None else within_contoured
    settings = Settings(tolerance_mm, tuple(scoped), margin_slices, policy or EmptyPolicy())
    settings.check_names(list(names.table))
    card = _score_all(matches, _only(names, organs), settings, progress)
    if out is not None:
        card.save(out)
    return card


@dataclass(frozen=True)
class _Names:
    """What the references call their values, what was contoured, what is scored, and where that was found out."""

    table: dict[str, int]
    index: ReferenceIndex | None
    notes: tuple[str, ...] = ()
    organs: frozenset[str] | None = None

    @property
    def labels(self) -> dict[str, int]:
        """Organ -> value of the organs that are scored."""
        return {name: value for name, value in self.table.items() if self.organs is None or name in self.organs}

    def known(self, case: str) -> frozenset[str] | None:
        return None if self.index is None else self.index.known(case)

    def patient(self, case: str) -> str:
        return case if self.index is None else self.index.patients.get(case, case)


def _names(matches: Matches, index: Path | None, labels: Path | Mapping[str, int] | None) -> _Names:
    contents = None if index is None else read_reference_index(index)
    table = _given(labels) or (contents.labels if contents else {}) or _shared_table(matches)
    names = _Names(table, contents) if table else _borrowed(matches, contents)
    if contents:
        contents.check(names.table)
    return names


def _given(labels: Path | Mapping[str, int] | None) -> dict[str, int]:
    return read_labels(labels) if isinstance(labels, Path) else dict(labels or {})


def _shared_table(matches: Matches) -> dict[str, int] | None:
    """The label table beside the references, read for each of them: a value has to mean the same in all."""
    first = matches.pairs[0][0].path
    table = table_beside(first)
    for reference, _ in matches.pairs[1:]:
        if table_beside(reference.path) != table:
            raise DataError(
                f"The references {first} and {reference.path} differ in the label tables beside them.",
                advice="Bring the masks to the same values, or score the references of each table by themselves.",
            )
    return table


def _borrowed(matches: Matches, contents: ReferenceIndex | None) -> _Names:
    """Without a table for the references: the predictions' one, or plain numbers; the reader is told."""
    for _, prediction in matches.pairs:
        table = table_beside(prediction.path) if prediction else None
        if table:
            note = "The references have no label table: the values of the predictions' table are assumed for them."
            return _Names(table, contents, (note,))
    values = sorted({value for pair in matches.pairs for mask in pair if mask for value in _values(mask)})
    if not values:
        raise DataError("No label table, and every mask is empty.", advice="Give the label table as JSON.")
    note = "No label table was found: organs are named by their value, taken to mean the same on both sides."
    return _Names({f"label_{value}": value for value in values}, contents, (note,))


def _values(mask: MaskFile) -> set[int]:
    return {int(value) for value in np.unique(read_label_map(mask.path)[0])} - {0}


def _only(names: _Names, organs: Sequence[str] | None) -> _Names:
    if organs is None:
        return names
    refuse_unknown(set(organs), list(names.table))
    return replace(names, organs=frozenset(organs))


def _score_all(matches: Matches, names: _Names, settings: Settings, progress: ProgressCallback | None) -> Scorecard:
    rows: list[OrganScore] = []
    notes = dict.fromkeys(names.notes)
    for number, (reference, prediction) in enumerate(matches.pairs):
        if progress:
            progress(Progress("evaluate", number / len(matches.pairs), reference.case))
        scores, said = _score_case(reference, prediction, names, settings)
        rows += scores
        notes |= dict.fromkeys(said)
    return Scorecard(
        tuple(rows),
        tuple(names.labels),
        tuple(reference.case for reference, _ in matches.pairs),
        settings,
        matches.references_without_prediction,
        matches.predictions_without_reference,
        tuple(notes),
        tuple(names.patient(reference.case) for reference, _ in matches.pairs),
    )


def _score_case(
    reference: MaskFile, prediction: MaskFile | None, names: _Names, settings: Settings
) -> tuple[tuple[OrganScore, ...], list[str]]:
    labels, grid = read_label_map(reference.path)
    table, notes = _prediction_table(prediction, names)
    predicted = _read_prediction(prediction, grid, reference)
    scores = evaluate_arrays(
        predicted,
        labels,
        grid,
        labels=names.labels,
        prediction_labels=table,
        known=names.known(reference.case),
        settings=settings,
        case=reference.case,
    )
    return scores, notes + _nameless(predicted, table, reference.case)


def _nameless(predicted: Array | None, table: Mapping[str, int], case: str) -> list[str]:
    found = set() if predicted is None else {int(value) for value in np.unique(predicted)} - {0, *table.values()}
    listed = ", ".join(map(str, sorted(found)))
    return [f"Case {case}: predicted values without a name are not scored: {listed}."] if found else []


def _read_prediction(prediction: MaskFile | None, grid: Geometry, reference: MaskFile) -> Array | None:
    if prediction is None:
        return None
    labels, own = read_label_map(prediction.path)
    if not own.matches(grid):
        raise DataError(
            f"Case {reference.case}: {prediction.path} lies on another grid than {reference.path}: {_grid(own)} "
            f"against {_grid(grid)}.",
            advice="Bring the mask to the reference's grid first; nothing is resampled silently.",
        )
    return labels


def _prediction_table(prediction: MaskFile | None, names: _Names) -> tuple[dict[str, int], list[str]]:
    table = table_beside(prediction.path) if prediction else None
    if prediction is None or table is None:
        said = [] if prediction is None or names.notes else ["Masks without a label table: the references' values."]
        return names.table, said
    lacking = [organ for organ in names.labels if organ not in table]
    if len(lacking) == len(names.labels):
        raise DataError(
            f"{prediction.path}: its label table names {', '.join(table)}; the references name "
            f"{', '.join(names.labels)}.",
            advice="Nothing can be compared; rename the organs of one table.",
        )
    said = [f"Organs that the predictions' label table lacks count as misses: {', '.join(lacking)}."] if lacking else []
    return table, said


def _grid(geometry: Geometry) -> str:
    spacing = " x ".join(f"{mm:.3f}" for mm in geometry.spacing_mm)
    origin = ", ".join(f"{mm:.2f}" for mm in geometry.affine[:3, 3])
    return f"{' x '.join(map(str, geometry.shape))} voxels of {spacing} mm, {geometry.orientation}, origin ({origin})"
