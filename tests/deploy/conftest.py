"""A network whose masks are known, scans for it, and one export of it that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.deploy.package import Exported, Request, export_package
from medseg.imaging.nifti import write_label_map
from medseg.models.store import ModelPackage, load_model
from tests.inference.planted import planted_labels, planted_volume, write_package
from tests.phantoms import write_nifti

SPACING_MM = (4.0, 4.0, 4.0)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """The threshold network; not to be changed."""
    return load_model(write_package(tmp_path_factory.mktemp("planted") / "threshold"))


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans with two organs each, and their contours beside them."""
    folder = tmp_path_factory.mktemp("scans")
    for number, size in enumerate((26, 28, 30)):
        volume = planted_volume((size, 26, 24), SPACING_MM)
        write_nifti(folder / f"p{number}_ct.nii.gz", volume)
        write_label_map(folder / f"p{number}_label.nii.gz", planted_labels(volume), volume.geometry)
    return folder


@pytest.fixture(scope="session")
def exported(planted: ModelPackage, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The threshold network with both variants."""
    out = tmp_path_factory.mktemp("exported") / "package"
    return export_package(planted, Request(out, int8=True, calibrate=scans, references=scans))
