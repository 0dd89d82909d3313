"""The reading door: any scan in, `Volume` out. The reading itself happens in a process that may break: see `room`."""

from __future__ import annotations

from pathlib import Path

from medseg.imaging.acceptance import Acceptance
from medseg.imaging.room import reading_room
from medseg.imaging.volume import Volume


def read_volume(path: str | Path, *, series: str | int | None = None, accept: str | None = None) -> Volume:
    """Read a CT from whatever it came in.

    Args:
        path: NIfTI, NRRD or MHA file, DICOM folder or one of its files, or a zip of one of these.
            The content decides, not the extension.
        series: where a folder or zip holds several CT series, the number in the list that the
            error shows, or (the end of) its UID.
        accept: a reason to go on with what is no CT or holds no Hounsfield units; it becomes a finding.

    Returns:
        Volume with `hu` in float32, indexed as the file; `findings` is empty for a clean scan and
        `evidence` tells what was verified.

    Raises:
        InputError: one of its branches; the text names the file, the reason and the way out.
        ResourceError: it does not fit into memory.
    """
    choice = None if series is None else str(series)
    return reading_room().read(Path(path), choice, Acceptance.of(accept))
