"""Results on DICOM scans that lie every way a scan can lie, with organs planted at known places."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medseg.imaging import Geometry, Volume, read_volume
from medseg.imaging.dicom_source import SourceSlices, read_source
from medseg.imaging.volume import Array
from medseg.labels import LabelTable
from medseg.models.store import load_model
from medseg.preprocess.restore import LabelMap
from medseg.results.measure import measure
from medseg.results.segmentation import Segmentation
from tests.phantoms import _millimetres, _paint, phantom_labels, phantom_volume, write_dicom_series

LIES = ("axial", "oblique", "sagittal", "feet first")
SHAPE, SPACING = (72, 64, 40), (2.1, 2.0, 3.5)
NAMES = {"parotid_gland_left": 1, "spinal_cord": 2, "mandible": 3, "larynx": 7}
"""The larynx is in the table and not in the scan."""


@dataclass(frozen=True)
class Scanned:
    """A scan on the disk and its result."""

    folder: Path
    result: Segmentation
    source: SourceSlices

    def mask(self, name: str) -> Array:
        return np.asarray(self.result.mask == NAMES[name])


def lying(how: str) -> Volume:
    """The phantom as a scanner would send it in that position."""
    if how == "oblique":
        return _oblique()
    orientation = {"axial": "LPS", "sagittal": "PIR", "feet first": "RPI"}[how]
    return phantom_volume(SHAPE, SPACING, orientation=orientation)


def _oblique() -> Volume:
    straight = phantom_volume(SHAPE, SPACING, orientation="LPS")
    a, b = math.radians(17), math.radians(-9)
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    turn, middle = about_z @ about_x, np.array([7.0, -11.0, 23.0])
    affine = np.eye(4)
    affine[:3, :3] = turn @ straight.affine[:3, :3]
    affine[:3, 3] = middle + turn @ (straight.affine[:3, 3] - middle)
    geometry = Geometry(straight.geometry.shape, affine)
    hu = np.round(_paint(_millimetres(geometry.shape, affine, middle))).astype(np.float32)
    return Volume(hu, geometry, name="oblique")


def planted(volume: Volume) -> Array:
    """Sphere (left), a box with a hollow core and a rod, on the volume's grid."""
    labels = phantom_labels(volume)
    mm = _millimetres(volume.geometry.shape, volume.affine, (7.0, -11.0, 23.0))
    core = np.abs(mm[0] - 30) + np.abs(mm[1] + 6) < 6
    labels[(labels == 2) & core] = 0
    return labels


def result_of(volume: Volume, labels: Array | None = None, **run: Any) -> Segmentation:
    """What a model would have said about the phantom."""
    mask = planted(volume) if labels is None else labels
    table = LabelTable.from_names(NAMES)
    confidence = np.where(mask > 0, 230, 0).astype(np.uint8)
    rows = measure(LabelMap(mask, confidence, volume.geometry), volume, table)
    facts = {"study": volume.name, "created": "2026-01-02T03:04:05+00:00"}
    package = load_model("head-neck-oar")
    facts |= {"model": {"name": package.card.name, "version": package.card.version, "sha256": package.sha256}}
    return Segmentation(mask, table, volume, rows, volume.findings, facts | run)


CHINESE = {"腮腺_left": 1, "脊髓": 2, "下颌骨": 3}
"""The organs of the phantom as a Chinese model may name them."""


def foreign_scan(folder: Path, charset: str, patient: str) -> Scanned:
    """A scan in a character set of its own, its organs named in Chinese."""

    def with_code(dataset: Dataset, k: int) -> None:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99TEST", patient
        dataset.ProcedureCodeSequence = [code]

    tags = {"SpecificCharacterSet": charset, "PatientName": patient, "StudyDescription": patient}
    write_dicom_series(folder, lying("axial"), fault=with_code, **tags)
    volume = read_volume(folder)
    result = replace(result_of(volume), labels=LabelTable.from_names(CHINESE))
    return Scanned(folder, result, read_source(folder, volume.geometry, series=volume.series))


@pytest.fixture(scope="session")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Scanned]:
    """A scan in that position, written once."""
    made: dict[str, Scanned] = {}

    def make(how: str) -> Scanned:
        if how not in made:
            folder = tmp_path_factory.mktemp("scan") / how.replace(" ", "-")
            position = "FFS" if how == "feet first" else "HFS"
            write_dicom_series(folder, lying(how), PatientPosition=position, PositionReferenceIndicator="")
            volume = read_volume(folder)
            source = read_source(folder, volume.geometry, series=volume.series)
            made[how] = Scanned(folder, result_of(volume), source)
        return made[how]

    return make


@pytest.fixture(params=LIES)
def scan(request: pytest.FixtureRequest, scanned: Callable[[str], Scanned]) -> Scanned:
    """A scan in each position."""
    return scanned(request.param)


def needs_tool(name: str, package: str) -> None:
    """Skip a test where a program of the system is missing."""
    if shutil.which(name) is None:
        pytest.skip(f"no {name}: `apt-get install {package}`")


def dice(a: Array, b: Array) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
