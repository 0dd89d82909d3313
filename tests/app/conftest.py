"""What all tests of the page share: a desk with real processes behind it, and scans to hand in."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.testing.v1 import app_test

from app.services import Desk
from app.studies import RunView, StudyView
from app.work.look import look
from app.work.segment import segment
from medseg.imaging.volume import Volume
from medseg.jobs.request import JobRequest
from medseg.runtime.progress import ignore
from tests.phantoms import phantom_volume, write_nifti

VISITOR, OTHER = "v" * 32, "w" * 32
PATIENCE_S = 240.0


class Upload(io.BytesIO):
    """What a browser hands in."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = name


@pytest.fixture(scope="session", autouse=True)
def tidy_streamlit() -> Iterator[None]:
    """AppTest makes a temporary folder when it is imported and leaves its removal to the end of the process."""
    yield
    app_test.TMP_DIR.cleanup()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("page"))
    yield desk
    desk.close()
    assert not desk.folders.root.exists()


def until(answer: Callable[[], bool]) -> None:
    """Wait for something that happens in another process."""
    end = time.monotonic() + PATIENCE_S
    while not answer():
        assert time.monotonic() < end
        time.sleep(0.05)


def read(desk: Desk, study: str, visitor: str = VISITOR) -> StudyView:
    """The study once its scan has been read, or could not be."""
    until(lambda: desk.view(study, visitor).phase != "reading")
    return desk.view(study, visitor)


def run(desk: Desk, study: str, model: str = "tissue-hu", visitor: str = VISITOR) -> RunView:
    """Segment, and wait for the end."""
    read(desk, study, visitor)
    return ended(desk, study, desk.run(study, visitor, model), visitor)


def ended(desk: Desk, study: str, number: int, visitor: str = VISITOR) -> RunView:
    """A run once it is over."""

    def view() -> RunView:
        found = desk.view(study, visitor).run(number)
        assert found is not None
        return found

    until(lambda: view().state not in ("queued", "running"))
    return view()


def laid_out(folder: Path, volume: Volume | None = None) -> SimpleNamespace:
    """A scan and a result of it, laid out as the page's processes do: `path`, `scan` and `result` (folders)."""
    path = write_nifti(folder / "scan.nii.gz", volume or phantom_volume(noise_hu=0))
    scan, result = folder / "scan", folder / "result"
    for out in (scan, result):
        out.mkdir()
    look(JobRequest(path, scan), ignore)
    segment(JobRequest(path, result, model="tissue-hu"), ignore)
    return SimpleNamespace(path=path, scan=scan, result=result)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """See `laid_out`."""
    return laid_out(tmp_path_factory.mktemp("ready"))


def box_mask(shape: tuple[int, int, int], *boxes: tuple[int, tuple[slice, ...]]) -> np.ndarray:
    """A mask of boxes, first axis fastest."""
    mask = np.zeros(shape, np.uint8, order="F")
    for value, where in boxes:
        mask[where] = value
    return mask
