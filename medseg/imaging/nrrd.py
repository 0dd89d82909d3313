"""NRRD: the door for .nrrd and .nhdr."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import GeometryError, NotVolumeError, UnknownFormatError
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.grid import check_shape
from medseg.imaging.headed import TextHeader, floats, header_line, integers, read_headed, refuse
from medseg.imaging.naming import printable
from medseg.imaging.volume import Array, Volume

_ENCODINGS = {"raw": "raw", "gzip": "zlib", "gz": "zlib", "bzip2": "bzip2", "bz2": "bzip2"}
_NRRD_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_OF_SPACE = {"domain", "space", "none", "???"}
_NRRD_SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
}


def read_nrrd(path: Path, *, accept: Acceptance = NOTHING) -> Volume:
    """Read a CT from an NRRD file; errors as `read_volume`."""
    return read_headed(path, parse_nrrd, accept)


def parse_nrrd(path: Path, content: bytes) -> TextHeader:
    """Understand the header at the start of `content`."""
    fields, lines, end = _fields(content)
    shape = _nrrd_shape(path, fields)
    skips = any(int(fields.get(key, "0")) for key in ("line skip", "lineskip", "byte skip", "byteskip"))
    refuse(path, skips, "its voxels begin at an offset (skip)")
    refuse(path, bool({"old min", "oldmin", "old max", "oldmax"} & set(fields)), "its values are quantised (old min)")
    encoding = _ENCODINGS.get(fields["encoding"].lower())
    if encoding is None:
        raise UnknownFormatError(path, f"its encoding {printable(fields['encoding'])!r} is not supported.")
    alone = "\n".join([*lines, "", ""]).encode()
    data_file = fields.get("data file", fields.get("datafile", ""))
    affine, dtype = _nrrd_affine(path, fields), _nrrd_type(path, fields)
    return TextHeader("nrrd", end, alone, shape, affine, dtype, encoding, data_file)


def _fields(content: bytes) -> tuple[dict[str, str], list[str], int]:
    """The fields, the lines without any naming another file, and where the voxels begin."""
    fields: dict[str, str] = {}
    line, end = header_line(content, 0)
    lines = [line]
    while end < len(content):
        line, end = header_line(content, end)
        if not line:
            break
        key, separator, value = line.partition(": ")
        told = separator and not line.startswith("#")
        if told and fields.setdefault(key.strip().lower(), value.strip()) != value.strip():
            raise ValueError(f"it says {key.strip()} twice")
        if key.lower() not in ("data file", "datafile"):
            lines.append(line)
    return fields, lines, end


def _nrrd_shape(path: Path, fields: dict[str, str]) -> tuple[int, int, int]:
    sizes = integers(fields["sizes"], int(fields["dimension"]))
    if "none" in fields.get("space directions", "").split():
        listed = " x ".join(map(str, sizes))
        raise NotVolumeError(path, f"has an axis that is not space ({listed}): several values or times.")
    if kinds := set(fields.get("kinds", "").lower().split()) - _OF_SPACE:
        raise NotVolumeError(path, f"has an axis that is not space ({printable(' '.join(sorted(kinds)))}).")
    return check_shape(path, sizes)


def _nrrd_type(path: Path, fields: dict[str, str]) -> np.dtype:
    name = fields["type"].lower()
    code = next((code for code, names in _NRRD_TYPES.items() if name in names), None)
    if code is None:
        raise NotVolumeError(path, f"its voxels are of type {printable(name)!r}, not single numbers.")
    big = fields.get("endian", "little").lower() == "big"
    return np.dtype(code).newbyteorder(">" if big else "<")


def _nrrd_affine(path: Path, fields: dict[str, str]) -> Array:
    space = fields.get("space", "").lower()
    if space not in _NRRD_SPACES or "space directions" not in fields or "space origin" not in fields:
        raise GeometryError(path, "it does not say how the scan lies (space, space directions, space origin).")
    if units := set(fields.get("space units", "").replace('"', " ").split()) - {"mm"}:
        raise GeometryError(path, f"its lengths are in {printable(' '.join(sorted(units)))}, not in millimetres.")
    directions = [_vector(part) for part in fields["space directions"].replace(") (", ")|(").split("|")]
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions).T
    affine[:3, 3] = _vector(fields["space origin"])
    return np.asarray(np.diag([*_NRRD_SPACES[space], 1.0]) @ affine)


def _vector(text: str) -> tuple[float, ...]:
    found = floats(text.strip().strip("()").replace(",", " "))
    if len(found) != 3:
        raise ValueError("a direction does not have three numbers")
    return found
