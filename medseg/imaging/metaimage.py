"""MetaImage: the door for .mha and .mhd."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from medseg.errors import GeometryError
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.grid import check_shape
from medseg.imaging.headed import TextHeader, floats, header_line, integers, read_headed, refuse
from medseg.imaging.volume import Array, Volume

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
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
        key, _, value = line.partition("=")
        if fields.setdefault(key.strip(), value.strip()) != value.strip():
            raise ValueError(f"it says {key.strip()} twice")
    refuse(path, int(fields.get("ElementNumberOfChannels", "1")) != 1, "its voxels are not single values")
    shape = check_shape(path, integers(fields["DimSize"], int(fields["NDims"])))
    refuse(path, fields.get("BinaryData", "True") != "True", "it is stored as text")
    refuse(path, int(fields.get("HeaderSize", "0")) != 0, "its voxels begin at an offset (HeaderSize)")
    swapped = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")) == "True"
    dtype = np.dtype(_MHA_TYPES[fields["ElementType"]]).newbyteorder(">" if swapped else "<")
    data_file = "" if fields["ElementDataFile"] in ("LOCAL", "Local", "local") else fields["ElementDataFile"]
    encoding = "zlib" if fields.get("CompressedData", "False") == "True" else "raw"
    alone = content[: content.rfind(b"ElementDataFile", 0, end)] + b"ElementDataFile = LOCAL\n"
    # Without it SimpleITK returns noise, without an error: nobody could confirm what we read.
    packed_size = int(fields["CompressedDataSize"]) if encoding == "zlib" else None
    return TextHeader("mha", end, alone, shape, _mha_affine(path, fields), dtype, encoding, data_file, packed_size)


def _mha_affine(path: Path, fields: dict[str, str]) -> Array:
    spacing = floats(fields.get("ElementSpacing") or fields.get("ElementSize", ""))[:3]
    axes = floats(fields.get("TransformMatrix") or fields.get("Rotation") or fields.get("Orientation", ""))
    origin = floats(fields.get("Offset") or fields.get("Position") or fields.get("Origin", ""))[:3]
    if len(spacing) != 3 or len(origin) != 3 or len(axes) not in (9, 16):
        raise GeometryError(path, "its header lacks spacing, direction or origin.")
    if min(spacing) <= 0:
        raise GeometryError(path, f"its voxel spacing is {' x '.join(f'{mm:g}' for mm in spacing)} mm.")
    side = math.isqrt(len(axes))
    affine = np.eye(4)
    # MetaImage writes one axis after the other.
    affine[:3, :3] = np.array(axes).reshape(side, side)[:3, :3].T * np.array(spacing)
    affine[:3, 3] = origin
    return np.asarray(_LPS @ affine)
