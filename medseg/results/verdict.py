"""Whether a mask shows anything, in a word; and the reason where it does not."""

from __future__ import annotations

from collections.abc import Iterable

from medseg.imaging.volume import Array, Finding
from medseg.labels import LabelTable

WHY_EMPTY = ("outside_field", "empty")
"""Codes of the findings that give the reason of an empty mask."""


def verdict_of(mask: Array) -> str:
    """'segmented', or 'empty'."""
    return "segmented" if mask.any() else "empty"


def why_empty(mask: Array, labels: LabelTable, said: Iterable[Finding]) -> tuple[Finding, ...]:
    """An empty mask is a verdict of its own, never plain success: what is to be said, unless it was `said`."""
    if mask.any() or any(finding.code in WHY_EMPTY for finding in said):
        return ()
    organs = ", ".join(label.title.lower() for label in labels)
    return (Finding("empty", f"Nothing was found: no {organs} in this scan."),)
