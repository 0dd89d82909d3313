"""FindingClassifier: a report's words -> how likely each finding is. A forest on chosen terms, no network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import DataError
from medseg.inference.backends.predictor import needs
from vlretrieval.reports.features import report_terms
from vlretrieval.reports.table import UNKNOWN, ReportTable

Scores = NDArray[np.float64]


class FindingClassifier:
    """Trained by `fit` on labelled reports.

    Whether a finding is stated hangs on few words and on their denial: trees over the presence of chosen terms learn
    that from some hundred reports, better than linear models and boosted trees on the same terms (decision 42).

    Args:
        terms: that are chosen for each finding.
        trees: of each forest.
        seed: of the forests.
        jobs: cores; all that this process may use if not given.
    """

    def __init__(self, terms: int = 600, trees: int = 500, seed: int = 0, jobs: int | None = None) -> None:
        self.terms, self.trees, self.seed = terms, trees, seed
        self.jobs = len(os.sched_getaffinity(0)) if jobs is None else jobs
        self.findings: tuple[str, ...] = ()
        self._vectoriser: Any = None
        self._forests: list[tuple[Any, Any] | float] = []

    def fit(self, reports: ReportTable, tell: Callable[[str], None] = lambda finding: None) -> FindingClassifier:
        """Learn from reports; a finding of which all reports say the same gets that share as its score.

        Args:
            reports: to learn from.
            tell: called with each finding that comes next.

        Raises:
            DataError: fewer than ten reports.
        """
        if len(reports) < 10:
            raise DataError(f"{len(reports)} reports are too few to learn from; ten are the least.")
        with needs("sklearn", "retrieval"):
            from sklearn.feature_extraction.text import CountVectorizer
        self.findings = reports.findings
        self._vectoriser = CountVectorizer(analyzer=report_terms, min_df=3 if len(reports) >= 100 else 1, binary=True)
        seen = self._vectoriser.fit_transform(reports.texts)
        self._forests = []
        for place, finding in enumerate(self.findings):
            tell(finding)
            self._forests.append(self._fit_one(seen, reports.labels[:, place]))
        return self

    def _fit_one(self, seen: Any, labels: NDArray[np.int64]) -> tuple[Any, Any] | float:
        from sklearn.ensemble import ExtraTreesClassifier
        from sklearn.feature_selection import SelectKBest, chi2

        known = labels != UNKNOWN
        answers = labels[known]
        if len(np.unique(answers)) < 2:
            return float(answers.mean()) if len(answers) else 0.0
        rows = seen[np.flatnonzero(known)]
        chosen = SelectKBest(chi2, k=min(self.terms, rows.shape[1])).fit(rows, answers)
        forest = ExtraTreesClassifier(
            self.trees, min_samples_leaf=2, class_weight="balanced", random_state=self.seed, n_jobs=self.jobs
        )
        return chosen, forest.fit(chosen.transform(rows).toarray(), answers)

    def score(self, texts: Sequence[str]) -> Scores:
        """[N, F] between 0 and 1; higher is likelier, and no probability.

        Raises:
            DataError: nothing was learned yet.
        """
        if self._vectoriser is None:
            raise DataError("The classifier has not been trained.")
        seen = self._vectoriser.transform(texts)
        columns = [self._score_one(forest, seen) for forest in self._forests]
        return np.stack(columns, axis=1)

    @staticmethod
    def _score_one(forest: tuple[Any, Any] | float, seen: Any) -> Scores:
        if isinstance(forest, float):
            return np.full(seen.shape[0], forest)
        chosen, trees = forest
        found: Scores = trees.predict_proba(chosen.transform(seen).toarray())[:, 1]
        return found
