"""Numbers as people read them."""

from __future__ import annotations


def volume_text(volume_ml: float) -> str:
    """Three digits that matter: 0.42, 12.3, 1,234."""
    digits = 2 if volume_ml < 1 else 1 if volume_ml < 1000 else 0
    return f"{volume_ml:,.{digits}f}"
