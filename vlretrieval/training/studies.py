"""TrainingStudy: what the task draws batches from. With reference masks texts are facts; else they are reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlretrieval.facts.kinds import Facts, read_facts
from vlretrieval.facts.texts import encode_facts
from vlretrieval.inputs import StudyInput
from vlretrieval.profile import Profile


@dataclass(frozen=True)
class TrainingStudy:
    """One study.

    Attributes:
        id, patient: names; studies of one patient never teach against each other.
        seen: what the encoder sees.
        reference: of reference masks; facts are read from it, also of a part of the scan.
        report: words, where there is no reference.
        labels: findings of the report, 0 or 1.
    """

    id: str
    patient: str
    seen: StudyInput
    reference: Profile | None = None
    report: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        """Facts of the whole scan."""
        return {} if self.reference is None else read_facts(self.reference)


def label_names(studies: Sequence[TrainingStudy]) -> tuple[str, ...]:
    """Findings of all reports, in order."""
    return tuple(sorted({name for study in studies for name in study.labels}))


def attributes(studies: Sequence[TrainingStudy], labels: tuple[str, ...]) -> NDArray[np.int64]:
    """[N, K + labels]: facts, then findings; -1 is unknown."""
    return np.stack([np.concatenate([encode_facts(s.facts), encode_labels(s.labels, labels)]) for s in studies])


def encode_labels(labels: Mapping[str, int], names: tuple[str, ...]) -> NDArray[np.int64]:
    """[labels] 0, 1 or -1."""
    return np.array([labels.get(name, -1) for name in names], dtype=np.int64)
