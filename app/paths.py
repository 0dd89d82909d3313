"""Paths on this computer, as visitors type them."""

from __future__ import annotations

from pathlib import Path

from app.studies import refused


def path_of(text: str | Path) -> Path:
    """The path that a text names, `~` written out; something may lie there or not.

    Raises:
        Refused: no such path can be, or this computer may not look there: the home of nobody, a name that is too
            long, another user's folder.
    """
    try:
        path = Path(text).expanduser()
        path.resolve().exists()  # raises for what cannot be asked
    except (OSError, RuntimeError, ValueError) as error:
        raise refused("path", path=text) from error
    return path


def there(text: str | Path) -> Path:
    """The path that a text names, where something lies.

    Raises:
        Refused: nothing does, or it cannot be seen.
    """
    path = path_of(text)
    if not path.exists():
        raise refused("path", path=path)
    return path
