"""What the recipes share: the phantom, its encodings, and how a case is written down."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from medseg.imaging.volume import Volume
from tests.dicom_edits import Edit
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

SHAPE, SPACING_MM = (32, 28, 22), (5.0, 5.2, 6.0)
SHAPE_OFFSET = {"dim": 40, "datatype": 70, "bitpix": 72, "pixdim": 76, "vox_offset": 108, "slope": 112, "inter": 116}
SHAPE_OFFSET |= {"xyzt": 123, "qform": 252, "sform": 254, "quatern": 256, "srow_x": 280, "srow_z": 312, "descrip": 148}
OFFSETS = SHAPE_OFFSET
Make = Callable[[Path], Path]


@dataclass(frozen=True)
class Expect:
    """What has to become of a case.

    Attributes:
        verdict: 'refused', 'warned' or 'fine'.
        errors: names of the error classes that are right; any of them.
        codes: findings that have to be there.
        truth: whether the phantom itself has to come out, voxel for voxel in the world.
    """

    verdict: str
    errors: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    truth: bool = True


def refused(*errors: str) -> Expect:
    return Expect("refused", errors, truth=False)


def warned(*codes: str, truth: bool = True) -> Expect:
    return Expect("warned", codes=codes, truth=truth)


FINE = Expect("fine")
FINE_OTHER = Expect("fine", truth=False)
"""Read without a finding, but not the phantom: other values or another grid on purpose."""


@dataclass(frozen=True)
class Case:
    """One bad or unusual input.

    Attributes:
        number: of the catalogue in the research notes, e.g. 'D7'.
        name: what is wrong, in a few words.
        expect: what has to become of it.
        make: writes it into an empty folder and returns what to open.
        series: the user's choice of a series, where one is needed.
    """

    number: str
    name: str
    expect: Expect
    make: Make
    series: str | None = None

    @property
    def id(self) -> str:
        return f"{self.number} {self.name}"


CASES: list[Case] = []


def case(number: str, name: str, expect: Expect, series: str | None = None) -> Callable[[Make], Make]:
    """Put a recipe into the catalogue."""

    def add(make: Make) -> Make:
        CASES.append(Case(number, name, expect, make, series))
        return make

    return add


@cache
def base(seed: int = 1) -> Volume:
    """The phantom as a scanner sends it; no two slices are alike."""
    return phantom_volume(SHAPE, SPACING_MM, orientation="LPS", seed=seed)


@cache
def nifti_bytes() -> bytes:
    """The phantom as an uncompressed NIfTI-1 file, int16."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_nifti(Path(folder) / "base.nii", base()).read_bytes()


def patched(**fields: bytes) -> bytes:
    """That file with bytes of its header replaced, by name in `OFFSETS`."""
    content = bytearray(nifti_bytes())
    for name, value in fields.items():
        content[OFFSETS[name] : OFFSETS[name] + len(value)] = value
    return bytes(content)


def put(folder: Path, content: bytes, name: str = "scan.nii.gz") -> Path:
    """Write bytes, packed where the name says so."""
    path = folder / name
    path.write_bytes(gzip.compress(content, 1, mtime=0) if name.endswith(".gz") else content)
    return path


def nifti_of(folder: Path, hu: np.ndarray, name: str = "scan.nii.gz", dtype: Any = np.float32, **more: Any) -> Path:
    """Other values on the phantom's grid."""
    return write_nifti(folder / name, Volume(hu.astype(np.float64), base().geometry), dtype=dtype, **more)


def series(folder: Path, volume: Volume | None = None, **more: Any) -> Path:
    """The phantom as a DICOM folder."""
    return write_dicom_series(folder / "study", volume or base(), **more)


def slices(folder: Path) -> list[Path]:
    """The written slices, from the first to the last."""
    return sorted(folder.glob("IM*.dcm"))


def simple(number: str, name: str, expect: Expect, fault: Edit, **more: Any) -> None:
    """A case that is the series with a change in its slices."""
    case(number, name, expect)(lambda folder: series(folder, fault=fault, **more))


def edit(path: Path, change: Callable[[pydicom.Dataset], object]) -> None:
    """Change one written slice."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def each(folder: Path) -> Iterator[tuple[int, Path]]:
    """The written slices with their numbers."""
    yield from enumerate(slices(folder))
