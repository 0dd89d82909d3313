"""Contours of scans: found by the scan's name, scored as `medseg evaluate` scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medseg.errors import DataError
from medseg.evaluation.arrays import evaluate_arrays
from medseg.evaluation.matching import case_name, find_masks
from medseg.evaluation.tables import ReferenceIndex, find_index, read_reference_index
from medseg.imaging.naming import scan_name
from medseg.imaging.nifti import read_label_map
from medseg.imaging.volume import Array, Geometry
from medseg.training.cases import how_grids_differ


class References:
    """A folder of reference label maps (ID_label.nii.gz for ID_ct.nii.gz), with or without an index.

    Args:
        place: the folder. An `index.json` in it, or one level up, numbers the organs and says what was contoured;
            without one the values are the model's.

    Raises:
        DataError: no label maps there, or the index does not fit.
    """

    def __init__(self, place: Path) -> None:
        self._masks = {mask.case: mask.path for mask in find_masks(place)}
        path = find_index(place)
        self._index: ReferenceIndex | None = None if path is None else read_reference_index(path)

    def covers(self, scan: Path) -> bool:
        """Whether there is a reference for a scan."""
        return _case(scan) in self._masks

    def require_some(self, scans: Sequence[Path], labels: Mapping[str, int]) -> None:
        """Refuse references by which none of these scans can be judged.

        Raises:
            DataError: no name of a case, or none of an organ, is known on both sides.
        """
        names = sorted(self._masks)
        if not any(map(self.covers, scans)):
            raise DataError(
                f"No reference fits a scan that is judged, by name: {_some(names)} against {_some(map(_case, scans))}.",
                advice="Name them alike: ID_label.nii.gz for ID_ct.nii.gz.",
            )
        table = self._index.labels if self._index else {}
        if table and not table.keys() & labels.keys():
            raise DataError(f"The references show {_some(table)}, of which the model knows none: {_some(labels)}.")

    def dice(self, scan: Path, mask: Array, grid: Geometry, labels: Mapping[str, int]) -> dict[str, float | None]:
        """Dice of every organ that was contoured; 0 for a missed one, None where neither holds it.

        Args:
            scan: its name is the case's.
            mask: label map [i, j, k] of the scan.
            grid: where scan and mask lie.
            labels: {organ: value in `mask`}.

        Raises:
            DataError: the reference lies on another grid than the scan.
        """
        case = _case(scan)
        reference, geometry = read_label_map(self._masks[case])
        if not geometry.matches(grid):
            raise DataError(
                f"Case {case}: {how_grids_differ(grid, geometry)}",
                advice=f"Write {self._masks[case].name} on the scan's grid, or leave it out.",
            )
        table = self._index.labels if self._index and self._index.labels else dict(labels)
        shared = {organ: value for organ, value in table.items() if organ in labels}
        known = None if self._index is None else self._index.known(case)
        scores = evaluate_arrays(
            mask, reference, geometry, labels=shared, prediction_labels=labels, known=known, case=case
        )
        return {score.organ: score.figures.dice for score in scores}


def _case(scan: Path) -> str:
    """The case of a scan of any format; nnU-Net numbers its first channel."""
    return case_name(scan_name(scan).removesuffix("_0000"))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (" ..." if len(listed) > 3 else "")
