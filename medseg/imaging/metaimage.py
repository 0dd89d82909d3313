"""MetaImage: the door for .mha and .mhd."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from medseg.errors import GeometryError
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.grid import check_shape
from medseg.imaging.headed import TextHeader, floats, header_line, integers, read_headed, refuse
from medseg.imaging.volume import LPS_TO_RAS, Array, Volume

AXIS_TOLERANCE = 1e-3
_MHA_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage(path: Path, *, accept: Acceptance = NOTHING) -> Volume:
    """Read a CT from a MetaImage file; errors as `read_volume`."""
    return read_headed(path, parse_metaimage, accept)


def parse_metaimage(path: Path, content: bytes) -> TextHeader:
    """Understand the header at the start of `content`."""
    fields: dict[str, str] = {}
    end = 0
    while "ElementDataFile" not in fields:
        line, end = header_line(content, end)
        key, sign, value = line.partition("=")
        if line.strip() and not sign:  # other readers take a bare word for "yes"
            raise ValueError(f"it says {key.strip()[:40]!r} without a value")
        if fields.setdefault(key.strip(), value.strip()) != value.strip():
            raise ValueError(f"it says {key.strip()} twice")
    refuse(path, int(fields.get("ElementNumberOfChannels", "1")) != 1, "its voxels are not single values")
    shape = check_shape(path, integers(fields["DimSize"], int(fields["NDims"])))
    refuse(path, not _says(fields, "BinaryData", default=True), "it is stored as text")
    refuse(path, int(fields.get("HeaderSize", "0")) != 0, "its voxels begin at an offset (HeaderSize)")
    refuse(path, _is_rescaled(fields), "its values are to be rescaled (ElementToIntensityFunction)")
    swapped = _says(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB", default=False)
    dtype = np.dtype(_MHA_TYPES[fields["ElementType"]]).newbyteorder(">" if swapped else "<")
    data_file = "" if fields["ElementDataFile"] in ("LOCAL", "Local", "local") else fields["ElementDataFile"]
    encoding = "zlib" if _says(fields, "CompressedData", default=False) else "raw"
    alone = content[: content.rfind(b"ElementDataFile", 0, end)] + b"ElementDataFile = LOCAL\n"
    # Without it SimpleITK returns noise, without an error: nobody could confirm what we read.
    packed_size = int(fields["CompressedDataSize"]) if encoding == "zlib" else None
    return TextHeader("mha", end, alone, shape, _mha_affine(path, fields), dtype, encoding, data_file, packed_size)


def _says(fields: dict[str, str], *names: str, default: bool) -> bool:
    """Yes or no, by the first letter as others read it; all names of the same thing have to agree."""
    told = {fields[name][:1].lower() in ("t", "1") for name in names if name in fields}
    if len(told) > 1:
        raise ValueError(f"{' and '.join(names)} contradict each other")
    return told.pop() if told else default


def _is_rescaled(fields: dict[str, str]) -> bool:
    slope, offset = (fields.get(f"ElementToIntensityFunction{name}", "") for name in ("Slope", "Offset"))
    return float(slope or 1) != 1 or float(offset or 0) != 0


def _numbers(fields: dict[str, str], *names: str) -> tuple[float, ...]:
    """What stands under any of these names of the same thing; all that are there have to agree."""
    told = {floats(fields[name]) for name in names if fields.get(name)}
    if len(told) > 1:
        raise ValueError(f"{' and '.join(name for name in names if name in fields)} contradict each other")
    return told.pop() if told else ()


def _mha_affine(path: Path, fields: dict[str, str]) -> Array:
    spacing = floats(fields.get("ElementSpacing") or fields.get("ElementSize", ""))[:3]
    axes = _numbers(fields, "TransformMatrix", "Rotation", "Orientation")
    origin = _numbers(fields, "Offset", "Position", "Origin")[:3]
    if len(spacing) != 3 or len(origin) != 3 or len(axes) not in (9, 16):
        raise GeometryError(path, "its header lacks spacing, direction or origin.")
    if min(spacing) <= 0:
        raise GeometryError(path, f"its voxel spacing is {' x '.join(f'{mm:g}' for mm in spacing)} mm.")
    side = math.isqrt(len(axes))
    # MetaImage writes one axis after the other.
    directions = np.array(axes).reshape(side, side)[:3, :3].T
    lengths = np.linalg.norm(directions, axis=0)
    if np.abs(lengths - 1).max() > AXIS_TOLERANCE:
        said = " x ".join(f"{length:g}" for length in lengths)
        raise GeometryError(path, f"its axes are of length {said} instead of 1, so its spacing is not what it says.")
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing)
    affine[:3, 3] = origin
    return np.asarray(LPS_TO_RAS @ affine)
