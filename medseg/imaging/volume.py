"""Volume and Geometry: the types that every other room hands around.

Arrays are indexed (i, j, k) as the file stores them; `affine` maps that index to RAS
millimetres. Nothing here reads files and nothing here knows torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Between the two ways to count millimetres; its own inverse. DICOM and ITK count in LPS."""

NOT_PROVABLE = (
    "that the patient's left is left, where pixels and header were mirrored together",
    "that no slice is missing at either end, where the header gives no count",
    "that the values were not altered, where the format has no checksum",
)
"""What no reader of a file can know; stated with every scan instead of being claimed."""


@dataclass(frozen=True)
class Geometry:
    """Where voxels lie, without the voxels.

    Attributes:
        shape: number of voxels along i, j, k.
        affine: 4x4, index (i, j, k, 1) -> RAS mm.
    """

    shape: tuple[int, int, int]
    affine: Array

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j, k."""
        i, j, k = axis_lengths(self.affine)
        return float(i), float(j), float(k)

    @property
    def affine_lps(self) -> Array:
        """4x4, index (i, j, k, 1) -> LPS mm, as DICOM and ITK count."""
        lps: Array = LPS_TO_RAS @ self.affine
        return lps

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    @property
    def orientation(self) -> str:
        """Direction of growing i, j, k as letters, e.g. 'LPS'."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def to_canonical(self) -> Array:
        """nibabel orientation (3x2) that turns the array into its nearest RAS order."""
        return nib.io_orientation(self.affine)

    def canonical(self) -> Geometry:
        """The same voxels, axes permuted and flipped to the nearest RAS order."""
        ornt = self.to_canonical
        affine = self.affine @ nib.orientations.inv_ornt_aff(ornt, self.shape)
        order = np.argsort(ornt[:, 0])
        shape = tuple(self.shape[axis] for axis in order)
        return Geometry((shape[0], shape[1], shape[2]), affine)

    def matches(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether both describe the same grid: every corner voxel within `tolerance_mm`."""
        return self.shape == other.shape and corner_distance(self.affine, other.affine, self.shape) <= tolerance_mm


def axis_lengths(affine: Array) -> Array:
    """Distance in mm between neighbouring voxel centres along i, j, k."""
    return np.asarray(np.linalg.norm(affine[:, :3], axis=0))


def corner_distance(first: Array, second: Array, shape: tuple[int, int, int]) -> float:
    """The largest distance in mm between the places that two affines give a corner voxel."""
    corners = np.array(list(product(*[(0, n - 1) for n in shape], [1]))).T
    return float(np.linalg.norm((first - second) @ corners, axis=0).max())


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the result should know about the scan or the result."""

    code: str
    message: str
    severity: Literal["info", "warning"] = "warning"

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Volume:
    """A CT in Hounsfield units.

    Attributes:
        hu: float32 array of `geometry.shape`, indexed (i, j, k) as the file stores it.
        geometry: its grid.
        name: the input's name without extension; never a patient's name.
        findings: what a reader should know; empty for a clean scan.
        sha256: digest of the bytes that were read (of all slices for DICOM).
        format: 'nifti', 'nrrd', 'mha' or 'dicom'.
        series: UID of the DICOM series.
        evidence: what stands behind it: which readers agreed, how exactly, and what no reader can prove.
    """

    hu: Array
    geometry: Geometry
    name: str = "scan"
    findings: tuple[Finding, ...] = ()
    sha256: str = ""
    format: str = "array"
    series: str = field(default="", repr=False)
    evidence: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def affine(self) -> Array:
        """4x4, index of `hu` -> RAS mm."""
        return self.geometry.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel spacing along the axes of `hu`."""
        return self.geometry.spacing_mm


def reorient(array: Array, ornt: Array) -> Array:
    """`array` with its axes flipped and permuted by a nibabel orientation (3x2); a view, no copy."""
    return nib.apply_orientation(array, ornt)


def restore_orientation(array: Array, ornt: Array) -> Array:
    """The inverse of `reorient`; a view."""
    return array.transpose(ornt[:, 0].astype(int))[tuple(slice(None, None, int(step)) for step in ornt[:, 1])]
