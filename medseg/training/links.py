"""Links to files of a data set, whose bytes are never copied or changed."""

from __future__ import annotations

import os
from pathlib import Path

from medseg.errors import OutputError


def link(place: Path, file: Path) -> None:
    """A link at `place` to the file; one from before is replaced.

    Raises:
        OutputError: the folder cannot hold links.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        os.symlink(file.resolve(), place)
    except OSError as error:
        raise OutputError(f"{place} could not be made: {error.strerror or error}.") from error
