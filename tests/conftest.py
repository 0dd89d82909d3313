"""What all tests share: where the real scans lie, and phantoms that are made once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medseg.imaging.room import reading_room
from medseg.imaging.volume import Volume
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests read no notes of this machine and leave none; the engine is PyTorch where a test asks for no other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MEDSEG_BACKEND", "torch")
        yield
    reading_room().close()


@pytest.fixture(autouse=True)
def _own_main() -> Iterator[None]:
    """Streamlit's AppTest leaves its script as `__main__`, which processes that are spawned later would run again."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real CTs beside the checkout."""
    if not (REAL_DATA / "README.md").is_file():
        pytest.skip("the real CTs (../shared/data) are not beside this checkout")
    return REAL_DATA


@pytest.fixture(scope="session")
def phantom() -> Volume:
    """The phantom as a scanner sends it: axial slices, LPS."""
    return phantom_volume(orientation="LPS")


@pytest.fixture(scope="session")
def phantom_nifti(phantom: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom as .nii.gz; not to be changed."""
    return write_nifti(tmp_path_factory.mktemp("nifti") / "phantom.nii.gz", phantom)


@pytest.fixture(scope="session")
def phantom_dicom(phantom: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom as a DICOM folder of 36 slices; not to be changed."""
    return write_dicom_series(tmp_path_factory.mktemp("dicom") / "study", phantom)
