"""The headers of the slices that became a volume, for objects that refer to them. Pixels are not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from medseg.errors import GeometryError
from medseg.imaging.acceptance import Acceptance
from medseg.imaging.archive import unpacked
from medseg.imaging.dicom import _files, _headers, quiet
from medseg.imaging.dicom_geometry import stack_slices
from medseg.imaging.dicom_headers import DicomFile
from medseg.imaging.dicom_series import check_uniform, choose
from medseg.imaging.sniff import sniff
from medseg.imaging.volume import Geometry

OFF_GRID = 0.05
"""How far, in voxels, a slice's corner may lie off its place."""
# Whether another kind than CT may be used was settled when the volume was read.
_ACCEPTED = Acceptance("the volume has been read")


@dataclass(frozen=True)
class SourceSlices:
    """The slices of a volume: `headers[k]` describes `hu[:, :, k]`."""

    headers: tuple[Dataset, ...]

    @property
    def first(self) -> Dataset:
        """Patient, study and series are those of any slice."""
        return self.headers[0]


def is_dicom(path: Path) -> bool:
    """Whether a scan came as DICOM: a folder, a file of one, or a zip that holds slices."""
    if path.is_dir():
        return True
    kind = sniff(path)
    if kind != "zip":
        return kind == "dicom"
    with unpacked(path) as members:
        return any(member.kind == "dicom" for member in members)


def read_source(path: Path, geometry: Geometry, *, series: str) -> SourceSlices:
    """Headers of the slices of one series, each put where it lies in the volume.

    Args:
        path: what was read: a DICOM folder, one of its files, or a zip.
        geometry: of the volume that came of it.
        series: UID of its series.

    Raises:
        InputError: the series is not there any more.
        GeometryError: the volume's slices are not those of the series, or frames of one object.
    """
    with dicom_files(path) as files, quiet():
        candidate = choose(path, _headers(path, files), series, _ACCEPTED)
        check_uniform(path, candidate)
        stack = stack_slices(path, candidate.slices)
        if any(place[0].frames > 1 for place in stack.places):
            raise GeometryError(
                path, "the scan is one multi-frame object: references to single frames are not written."
            )
        headers = [pydicom.dcmread(place[0].file.path, stop_before_pixels=True, force=True) for place in stack.places]
    return SourceSlices(tuple(_in_place(path, headers, geometry)))


@contextmanager
def dicom_files(path: Path) -> Iterator[Sequence[DicomFile]]:
    """The DICOM files of a folder, of a zip (unpacked meanwhile), or beside a file.

    Raises:
        InputError: the zip is damaged, hostile or too large.
    """
    if path.is_dir():
        yield list(_files(path))
    elif sniff(path) == "zip":
        with unpacked(path) as members:
            yield [DicomFile(member.path, member.label) for member in members if member.kind == "dicom"]
    else:
        yield list(_files(path.parent, nested=False))


def _in_place(path: Path, headers: Sequence[Dataset], geometry: Geometry) -> list[Dataset]:
    """By position, not by number: slice k of the volume is the one whose corner lies there."""
    to_index = np.linalg.inv(geometry.affine_lps)
    placed: dict[int, Dataset] = {}
    for header in headers:
        if "ImagePositionPatient" not in header:
            raise GeometryError(path, "the scan is one multi-frame object, to whose frames nothing is tied here.")
        corner = to_index @ [*(float(v) for v in header.ImagePositionPatient), 1.0]
        k = round(float(corner[2]))
        if np.abs(corner[:3] - [0, 0, k]).max() > OFF_GRID or (header.Columns, header.Rows) != geometry.shape[:2]:
            raise GeometryError(path, "the volume was resampled: its slices are not those of the series.")
        placed[k] = header
    if sorted(placed) != list(range(geometry.shape[2])):
        raise GeometryError(path, f"the series has slices at {len(placed)} of the volume's {geometry.shape[2]} places.")
    return [placed[k] for k in range(geometry.shape[2])]
