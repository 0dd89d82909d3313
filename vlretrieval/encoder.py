"""What turns studies, and words where it can, into vectors. The archive and the search know this seam alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from medseg.imaging.volume import Array
from vlretrieval.inputs import StudyInput
from vlretrieval.study import Vectors


class Encoder(Protocol):
    """Makes vectors that can be compared with each other and with no other encoder's."""

    @property
    def id(self) -> str:
        """name@version, stamped into archives."""
        ...

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        ...

    @property
    def features(self) -> int:
        """Numbers that its judge of pairs wants of a study; 0 where it has none."""
        ...

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs that have vectors of their own."""
        ...

    @property
    def fusion(self) -> Mapping[str, float]:
        """Weight of each leg of a search; legs that are not named have the usual one."""
        ...

    @property
    def judges(self) -> bool:
        """Whether it judges texts sentence by sentence (`likelihood`)."""
        ...

    def studies(self, inputs: Sequence[StudyInput]) -> list[Vectors]:
        """Vectors of the whole and of every organ that was found."""
        ...

    def words(self, text: str) -> Array | None:
        """[dim] of unit length; None where this encoder reads no words."""
        ...

    def likelihood(self, text: str, vectors: Array) -> Array | None:
        """[N] how likely a text is true of studies [N, dim], as a mean logarithm; None where it does not judge."""
        ...

    def match(self, text: str, features: Array) -> Array | None:
        """[N] how well a text fits studies, from their features [N, F]; None where it cannot judge."""
        ...
