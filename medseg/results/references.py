"""What volumes organs have elsewhere: published figures, and where there are none, the model's training patients.

A range says how a figure lies in it and no more: it is not a verdict on health, and an organ that is cut
off by the end of the scan is not compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from medseg.models.card import ModelCard

Kind = Literal["range", "typical", "training"]
Verdict = Literal["below", "within", "above", ""]


@dataclass(frozen=True)
class Reference:
    """Volumes of an organ elsewhere.

    Attributes:
        low_ml, high_ml: of the range.
        kind: 'range' (smallest to largest that was measured), 'typical' (reference woman to reference man), or
            'training' (1st to 99th percentile of the contours that the model was trained on).
        source: where the figures stand.
    """

    low_ml: float
    high_ml: float
    kind: Kind
    source: str

    def verdict(self, volume_ml: float, *, cut_off: bool) -> Verdict:
        """How a volume lies in the range; empty where that means nothing."""
        if cut_off or volume_ml <= 0 or self.kind == "typical":
            return ""
        if volume_ml < self.low_ml:
            return "below"
        return "above" if volume_ml > self.high_ml else "within"


def reference_for(organ: str, card: ModelCard | None = None) -> Reference | None:
    """The published figure for an organ, else that of the model's training patients, else None."""
    known = _published()["organs"].get(organ)
    if known is not None:
        return Reference(known["low_ml"], known["high_ml"], known["kind"], _published()["sources"][known["source"]])
    if card is None or card.anatomy is None or organ not in card.anatomy.organs:
        return None
    low, _, high = card.anatomy.organs[organ].volume_ml
    return Reference(low, high, "training", f"{card.id}: 1st to 99th percentile of the training contours")


@lru_cache(maxsize=1)
def _published() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("references.json").read_text("utf-8"))
    return content
