"""The SimpleITK door: a second opinion on headers and written masks, never the source of voxels.

SimpleITK fills truncated files with zeros and NaN with water without a word, so the voxels
are decoded by the doors themselves; what it is trusted with is to read a header independently.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from medseg.errors import GeometryError
from medseg.imaging.volume import LPS_TO_RAS, Array


def header_affine(path: Path, header: bytes, suffix: str) -> tuple[Array, tuple[int, ...]]:
    """The affine (index -> RAS mm) and the size that SimpleITK finds in the header alone.

    Axes of length one behind the third are left out of the size.

    Args:
        path: the scan, for the text of an error.
        header: its header, without voxels.
        suffix: extension by which SimpleITK chooses its reader, e.g. '.nii'.

    Raises:
        GeometryError: SimpleITK refuses the header.
    """
    with tempfile.TemporaryDirectory(prefix="medseg-") as folder:
        copy = Path(folder) / f"header{suffix}"
        copy.write_bytes(header)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(copy))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise GeometryError(path, "its header is refused by a second reader (SimpleITK).") from error
    size = reader.GetSize()
    size = size[:3] if math.prod(size[3:]) == 1 else size
    return _affine(reader.GetOrigin(), reader.GetSpacing(), reader.GetDirection()), tuple(int(n) for n in size)


def _affine(origin: tuple[float, ...], spacing: tuple[float, ...], direction: tuple[float, ...]) -> Array:
    dimensions = len(origin)
    axes = np.array(direction).reshape(dimensions, dimensions)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)[:3]
    affine[:3, 3] = origin[:3]
    return LPS_TO_RAS @ affine


def read_back(path: Path) -> tuple[Array, Array]:
    """Voxels (i, j, k) and affine (RAS mm) of a file that this project has just written."""
    image = sitk.ReadImage(str(path))
    voxels = sitk.GetArrayViewFromImage(image).T.copy(order="F")
    return voxels, _affine(image.GetOrigin(), image.GetSpacing(), image.GetDirection())
