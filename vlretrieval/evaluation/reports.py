"""How well are findings read from reports? Reports of one patient, or of the same words, are never on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import DataError
from vlretrieval.evaluation.ranking import auroc
from vlretrieval.evaluation.statistics import bootstrap
from vlretrieval.reports.classifier import FindingClassifier
from vlretrieval.reports.table import UNKNOWN, ReportTable, without_shared

FOLDS = 5
Tell = Callable[[str], None]


def _quiet(_: str) -> None: ...


@dataclass(frozen=True)
class FindingScores:
    """AUROC of every finding over the reports of which it is known; NaN where all say the same.

    Attributes:
        findings, auroc, positives: one for each finding.
        mean: over the findings that have one.
        low, high: 95 % of bootstrap copies, patients drawn.
        train, test: numbers of reports.
        left_out: training reports that were also, or whose patient was also, in the test.
    """

    findings: tuple[str, ...]
    auroc: tuple[float, ...]
    positives: tuple[int, ...]
    mean: float
    low: float
    high: float
    train: int
    test: int
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """The last line of the command: `mean_auroc`, and one for each finding."""
        each = {
            name: None if np.isnan(area) else round(area, 4)
            for name, area in zip(self.findings, self.auroc, strict=True)
        }
        return {
            "mean_auroc": round(self.mean, 4),
            "interval": [round(self.low, 4), round(self.high, 4)],
            "auroc": each,
            "train": self.train,
            "test": self.test,
            "left_out": self.left_out,
        }


def evaluate_reports(
    train: ReportTable,
    test: ReportTable,
    make: Callable[[], FindingClassifier] = FindingClassifier,
    tell: Tell = _quiet,
) -> FindingScores:
    """Train on one table, test on another.

    Raises:
        DataError: they share no finding, or no training report is left that the test does not hold.
    """
    shared = tuple(name for name in test.findings if name in train.findings)
    if not shared:
        raise DataError("The two tables share no finding.", advice=f"The test has: {', '.join(test.findings[:5])}.")
    apart = without_shared(train, test)
    scores = make().fit(apart, tell).score(test.texts)
    columns = [train.findings.index(name) for name in shared]
    labels = test.labels[:, [test.findings.index(name) for name in shared]]
    left_out = len(train) - len(apart)
    return _judge(shared, scores[:, columns], labels, test.patients, len(apart), left_out)


def cross_validate(
    reports: ReportTable,
    make: Callable[[], FindingClassifier] = FindingClassifier,
    folds: int = FOLDS,
    tell: Tell = _quiet,
) -> FindingScores:
    """Every report judged once, by a classifier that has seen neither its words nor its patient.

    Raises:
        DataError: fewer patients than folds.
    """
    groups = _groups(reports)
    if groups.max() + 1 < folds:
        raise DataError(f"{groups.max() + 1} patients do not make {folds} folds.")
    part = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % folds
    scores = np.zeros(reports.labels.shape)
    for fold in range(folds):
        held = np.flatnonzero(part == fold)
        tell(f"fold {fold + 1} of {folds}")
        classifier = make().fit(reports.take(np.flatnonzero(part != fold)))
        scores[held] = classifier.score(reports.take(held).texts)
    size = round(len(reports) * (folds - 1) / folds)
    return _judge(reports.findings, scores, reports.labels, reports.patients, size, 0)


def _groups(reports: ReportTable) -> NDArray[np.int64]:
    """A number for each patient; patients who share a report word for word have the same."""
    leader: dict[str, str] = {}

    def root(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for patient, text in zip(reports.patients, reports.texts, strict=True):
        leader[root(f"p {patient}")] = root(f"t {text}")
    return np.unique([root(f"p {patient}") for patient in reports.patients], return_inverse=True)[1]


def _judge(
    findings: tuple[str, ...],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    patients: Sequence[str],
    train: int,
    left_out: int,
) -> FindingScores:
    def areas(rows: NDArray[np.int64]) -> list[float]:
        return [_area(scores[rows, place], labels[rows, place]) for place in range(len(findings))]

    every = areas(np.arange(len(labels)))
    if np.isnan(every).all():
        raise DataError("No finding is both present and absent among the test's reports.")
    interval = bootstrap(
        np.arange(len(labels), dtype=float),
        patients,
        lambda rows: _mean(areas(rows.astype(int))),
        draws=500,
    )
    counts = tuple(int(count) for count in (labels == 1).sum(axis=0))
    mean = _mean(every)
    return FindingScores(
        findings, tuple(every), counts, mean, interval.low, interval.high, train, len(labels), left_out
    )


def _mean(areas: Sequence[float]) -> float:
    return float("nan") if np.isnan(areas).all() else float(np.nanmean(areas))


def _area(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    known = labels != UNKNOWN
    return auroc(scores[known], labels[known] == 1)
