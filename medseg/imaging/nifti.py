"""NIfTI: the door for .nii and .nii.gz, in and out.

nibabel interprets the header; the bytes are counted and their checksum verified here, and
SimpleITK has to understand the header in the same way.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from medseg.errors import CorruptFileError, DataError, GeometryError, NotVolumeError, OutputError
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.checks import check_finite, check_hounsfield, settle_padding
from medseg.imaging.emit import emit
from medseg.imaging.grid import (
    check_affine,
    check_shape,
    coarse_findings,
    file_evidence,
    grids_differ,
)
from medseg.imaging.naming import scan_name
from medseg.imaging.stream import ByteSource, open_source
from medseg.imaging.values import rescale, trailing_finding
from medseg.imaging.volume import Array, Finding, Geometry, Volume, corner_distance

HEADER_BYTES = {1: 348, 2: 540}
FIRST_VOXEL = {1: 352, 2: 544}
Q_S_TOLERANCE_MM = 0.1
SECOND_READER_TOLERANCE_MM = 0.01
_UNITS = {1: "metres", 3: "micrometres"}


@dataclass(frozen=True)
class _Header:
    """A header that has been understood and checked."""

    shape: tuple[int, int, int]
    affine: Array
    dtype: np.dtype
    first_voxel: int
    slope: float
    inter: float
    apart_mm: float


def read_nifti(path: Path, *, accept: Acceptance = NOTHING) -> Volume:
    """Read a CT from a NIfTI-1 or NIfTI-2 file, gzip or not.

    Returns:
        Volume whose `hu` is float32, indexed as the file.

    Raises:
        InputError: one of its branches, naming what is wrong.
    """
    path = Path(path)
    compressed = _is_compressed(path)
    voxels, header, sha256, findings = _read(path, compressed)
    hu = rescale(voxels, header.slope, header.inter)
    check_finite(path, hu)
    settle_padding(hu)
    findings += check_hounsfield(path, hu, accept) + coarse_findings(header.affine)
    geometry = Geometry(header.shape, header.affine)
    evidence = file_evidence(("nibabel", "SimpleITK"), header.apart_mm, checksum=compressed)
    return Volume(hu, geometry, scan_name(path), findings, sha256, "nifti", "", evidence)


def read_label_map(path: Path) -> tuple[Array, Geometry]:
    """Read whole-number labels: uint8 (i, j, k) where they fit, else int32, and their grid.

    Raises:
        InputError: the file is damaged or no volume.
        DataError: values that are no labels.
    """
    path = Path(path)
    voxels, header, _, _ = _read(path, _is_compressed(path))
    values = rescale(voxels, header.slope, header.inter)
    check_finite(path, values)
    labels = values.astype(np.int32)
    if not np.array_equal(labels, values) or labels.min() < 0:
        raise DataError(f"{path.name} holds values that are no labels (0, 1, 2 ...).")
    return labels.astype(np.uint8 if labels.max() < 256 else np.int32), Geometry(header.shape, header.affine)


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _read(path: Path, compressed: bool) -> tuple[Array, _Header, str, tuple[Finding, ...]]:
    with open_source(path, compressed=compressed) as source:
        header = _read_header(path, source)
        buffer = source.fill(math.prod(header.shape) * header.dtype.itemsize)
        slice_bytes = header.shape[0] * header.shape[1] * header.dtype.itemsize
        findings = trailing_finding(path, source.finish(), slice_bytes)
    voxels = np.frombuffer(buffer, header.dtype).reshape(header.shape, order="F")
    return voxels, header, source.sha256, findings


def _read_header(path: Path, source: ByteSource) -> _Header:
    block = source.read(HEADER_BYTES[1])
    version = nifti_version(block)
    if not version:
        raise CorruptFileError(path, "is not a single-file NIfTI (pairs of .hdr and .img are not read).")
    block += source.read(HEADER_BYTES[version] - len(block))
    if len(block) < HEADER_BYTES[version]:
        raise CorruptFileError(path, "ends within its header.")
    kind = nib.Nifti1Header if version == 1 else nib.Nifti2Header
    raw = kind(block, endianness=_endianness(path, block, HEADER_BYTES[version]), check=False)
    header = _check_header(path, raw, version)
    source.read(header.first_voxel - len(block))
    return header


def _endianness(path: Path, block: bytes, length: int) -> str:
    for code, order in (("<", "little"), (">", "big")):
        if int.from_bytes(block[:4], order) == length:  # type: ignore[arg-type]
            return code
    raise CorruptFileError(path, f"its header does not begin with its length ({length}).")


def nifti_version(block: bytes) -> int:
    """1 or 2 for the first bytes of a single-file NIfTI, else 0."""
    if block[344:348] == b"n+1\0":
        return 1
    return 2 if block[4:12] == b"n+2\0\r\n\x1a\n" else 0


def _check_header(path: Path, raw: nib.Nifti1Header, version: int) -> _Header:
    dtype = _check_dtype(path, raw)
    shape = _check_dimensions(path, raw)
    first = float(raw["vox_offset"])
    if not FIRST_VOXEL[version] <= first <= 1 << 24:
        raise CorruptFileError(path, f"its header puts the first voxel at byte {first:g}, in or far off the header.")
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        slope, inter = 1.0, 0.0
    if not math.isfinite(inter):
        raise CorruptFileError(path, f"its intercept is {inter}.")
    affine = _check_orientation(path, raw, shape)
    return _Header(shape, affine, dtype, int(first), slope, inter, _ask_second_reader(path, raw, shape, affine))


def _check_dtype(path: Path, raw: nib.Nifti1Header) -> np.dtype:
    try:
        dtype = raw.get_data_dtype()
    except (KeyError, nib.spatialimages.HeaderDataError) as error:
        raise CorruptFileError(path, f"its data type {int(raw['datatype'])} does not exist.") from error
    if dtype.kind not in "iuf" or dtype.name == "float128":
        what = "colours" if dtype.kind == "V" else f"{dtype.name} numbers"
        raise NotVolumeError(path, f"its voxels are {what}, not single values.")
    if int(raw["bitpix"]) not in (0, 8 * dtype.itemsize):
        raise CorruptFileError(path, f"its header says {int(raw['bitpix'])} bits for {dtype.name}.")
    return dtype


def _check_dimensions(path: Path, raw: nib.Nifti1Header) -> tuple[int, int, int]:
    count = int(raw["dim"][0])
    if not 1 <= count <= 7:
        raise CorruptFileError(path, f"its header says {count} dimensions.")
    lengths = tuple(int(n) for n in raw["dim"][1 : count + 1])
    if min(lengths) < 1:
        raise CorruptFileError(path, f"its header says a size of {' x '.join(map(str, lengths))}.")
    return check_shape(path, lengths)


def _check_orientation(path: Path, raw: nib.Nifti1Header, shape: tuple[int, int, int]) -> Array:
    unit = int(raw["xyzt_units"]) % 8
    if unit not in (0, 2):
        raise GeometryError(path, f"its lengths are in {_UNITS.get(unit, 'an unknown unit')}, not in millimetres.")
    spacing = np.array(raw["pixdim"][1:4], dtype=float)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise GeometryError(path, f"its voxel spacing is {' x '.join(f'{mm:g}' for mm in spacing)} mm.")
    codes = int(raw["qform_code"]), int(raw["sform_code"])
    if not set(codes) <= set(range(6)):
        raise CorruptFileError(path, f"its orientation codes are {codes[0]} and {codes[1]}, which do not exist.")
    sform, qform = _sform(raw), _qform(path, raw)
    if sform is None and qform is None:
        raise GeometryError(path, "it does not say how the scan lies (qform and sform are both unset).")
    affine = sform if sform is not None else qform
    assert affine is not None
    check_affine(path, affine)
    if sform is not None and qform is not None and (why := grids_differ(sform, qform, shape, Q_S_TOLERANCE_MM)):
        raise GeometryError(path, f"its two orientations, sform and qform, contradict each other: {why}.")
    return affine


def _sform(raw: nib.Nifti1Header) -> Array | None:
    return np.asarray(raw.get_sform(), dtype=np.float64) if int(raw["sform_code"]) > 0 else None


def _qform(path: Path, raw: nib.Nifti1Header) -> Array | None:
    if int(raw["qform_code"]) <= 0:
        return None
    raw = raw.copy()
    if raw["pixdim"][0] == 0:  # the standard reads 0 as +1; nibabel refuses it
        raw["pixdim"][0] = 1
    try:
        affine = np.asarray(raw.get_qform(), dtype=np.float64)
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        raise GeometryError(path, "its qform holds no rotation.") from error
    check_affine(path, affine)
    return affine


def _ask_second_reader(path: Path, raw: nib.Nifti1Header, shape: tuple[int, int, int], affine: Array) -> float:
    """How far apart the two readers put a corner of the volume, mm."""
    from medseg.imaging.itk import header_affine

    theirs, size = header_affine(path, _as_version_1(raw) + b"\0\0\0\0", ".nii")
    if size != shape:
        raise CorruptFileError(path, f"two readers find {shape} and {size} voxels in it.")
    if why := grids_differ(affine, theirs, shape, SECOND_READER_TOLERANCE_MM):
        raise GeometryError(path, f"two readers (nibabel, SimpleITK) understand its header differently: {why}.")
    return corner_distance(affine, theirs, shape)


def _as_version_1(raw: nib.Nifti1Header) -> bytes:
    """The header for SimpleITK, which knows no NIfTI-2: the same fields in the older layout."""
    if len(raw.binaryblock) == HEADER_BYTES[1]:
        return bytes(raw.binaryblock)
    older = nib.Nifti1Header()
    with np.errstate(over="ignore"):
        for field in set(older.keys()) & set(raw.keys()) - {"sizeof_hdr", "magic", "vox_offset"}:
            older[field] = raw[field]
    older["vox_offset"] = FIRST_VOXEL[1]
    return bytes(older.binaryblock)


def write_label_map(path: Path, labels: Array, geometry: Geometry) -> Path:
    """Write labels as uint8 .nii.gz on a grid: the same bytes for the same input, no text fields.

    Args:
        path: where it is to appear; complete and verified by SimpleITK, or not at all.
        labels: whole numbers 0..255 of `geometry.shape`.
        geometry: the grid of the scan.

    Raises:
        OutputError: it could not be written, or reads back differently.
    """
    path, labels = Path(path), np.asarray(labels)
    if labels.shape != geometry.shape or labels.min() < 0 or labels.max() > 255:
        raise OutputError(f"{path}: labels of shape {labels.shape} do not fit a grid of {geometry.shape} or 0..255.")
    return _write(path, labels.astype(np.uint8), geometry)


def write_percent(path: Path, percent: Array, geometry: Geometry) -> Path:
    """Write probabilities in whole per cent, uint8 0..100 (i, j, k), as .nii.gz.

    Raises:
        OutputError: other values, or it could not be written, or reads back differently.
    """
    if percent.max(initial=0) > 100:
        raise OutputError(f"{path}: {percent.max()} per cent.")
    return write_label_map(path, percent, geometry)


def write_scan(path: Path, volume: Volume) -> Path:
    """Write a CT as int16 .nii.gz, HU rounded to whole numbers, no text fields.

    Raises:
        OutputError: it could not be written, or reads back differently.
    """
    return _write(Path(path), np.clip(np.rint(volume.hu), -32768, 32767).astype(np.int16), volume.geometry)


def _write(path: Path, stored: Array, geometry: Geometry) -> Path:
    content = _encode(stored, geometry)

    def check(temporary: Path) -> None:
        from medseg.imaging.itk import read_back

        voxels, affine = read_back(temporary)
        if not np.array_equal(voxels, stored) or grids_differ(
            geometry.affine, affine, geometry.shape, SECOND_READER_TOLERANCE_MM
        ):
            raise OutputError(f"{path} read back differently from what was written.")

    return emit(path, lambda temporary: temporary.write_bytes(content), check)


def _encode(voxels: Array, geometry: Geometry) -> bytes:
    image = nib.Nifti1Image(voxels, geometry.affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(geometry.affine, code=1)
    image.set_sform(geometry.affine, code=1)
    image.header.set_slope_inter(1.0, 0.0)
    # Level 1: label maps are nearly constant, and more effort saves nothing that is worth the wait.
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
