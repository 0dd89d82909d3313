"""B: NRRD and MetaImage headers that contradict themselves, or say what most readers pass over."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from tests.poison.base import FINE, SPACING_MM, base, case, refused, warned

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _voxels(dtype: str = "<i2") -> bytes:
    return base().hu.astype(dtype).tobytes(order="F")


def _text(values: np.ndarray) -> str:
    return " ".join(f"{value:g}" for value in values)


def _nrrd(folder: Path, *more: str, body: bytes | None = None, name: str = "scan.nrrd", **fields: str) -> Path:
    """The phantom with these fields replaced, and these lines added to its header."""
    affine = LPS @ base().affine
    directions = " ".join("({:g},{:g},{:g})".format(*affine[:3, axis]) for axis in range(3))
    said = {
        "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "32 28 22",
        "space directions": directions, "kinds": "domain domain domain", "endian": "little", "encoding": "raw",
        "space origin": "({!r},{!r},{!r})".format(*map(float, affine[:3, 3])),
    } | fields  # fmt: skip
    lines = ["NRRD0004", *(f"{key}: {value}" for key, value in said.items()), *more, "", ""]
    (folder / name).write_bytes("\n".join(lines).encode() + (_voxels() if body is None else body))
    return folder / name


def _mha(folder: Path, body: bytes | None = None, **fields: str) -> Path:
    affine = LPS @ base().affine
    said = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": _text((affine[:3, :3] / SPACING_MM).T.ravel()), "Offset": _text(affine[:3, 3]),
        "ElementSpacing": _text(np.array(SPACING_MM)), "DimSize": "32 28 22", "ElementType": "MET_SHORT",
    } | fields | {"ElementDataFile": "LOCAL"}  # fmt: skip
    header = "".join(f"{key} = {value}\n" for key, value in said.items())
    (folder / "scan.mha").write_bytes(header.encode() + (_voxels() if body is None else body))
    return folder / "scan.mha"


case("B40", ".nrrd whose third axis is time", refused("NotVolumeError"))(
    lambda folder: _nrrd(folder, kinds="domain domain time")
)
case("B41", ".nrrd of quantised values", refused("NotVolumeError"))(
    lambda folder: _nrrd(folder, "old min: -1000", "old max: 1000")
)
case("B42", ".nhdr that names itself as its voxels", refused("CorruptFileError"))(
    lambda folder: _nrrd(folder, "data file: scan.nhdr", name="scan.nhdr")
)
case("B43", ".nrrd packed, junk behind it", warned("trailing_bytes"))(
    lambda folder: _nrrd(folder, encoding="gzip", body=gzip.compress(_voxels(), 1) + b"junk" * 50)
)
case("B44", ".nrrd without byte order", refused("GeometryError", "CorruptFileError"))(
    lambda folder: _nrrd(folder, endian="middle")
)
case("B45", ".mha, big endian in small letters", FINE)(
    lambda folder: _mha(folder, BinaryDataByteOrderMSB="true", body=_voxels(">i2"))
)
case("B45b", ".mha, two byte orders", refused("CorruptFileError"))(
    lambda folder: _mha(folder, ElementByteOrderMSB="True")
)
case("B45c", ".mha, packed in small letters", FINE)(
    lambda folder: _mha(
        folder,
        CompressedData="true",
        CompressedDataSize=str(len(zlib.compress(_voxels(), 1))),
        body=zlib.compress(_voxels(), 1),
    )
)
case("B46", ".mha with two origins", refused("CorruptFileError"))(lambda folder: _mha(folder, Position="1 2 3"))
case("B46b", ".mha with the same origin twice", FINE)(
    lambda folder: _mha(folder, Position=_text((LPS @ base().affine)[:3, 3]))
)
case("B47", ".mha whose values are to be rescaled", refused("NotVolumeError"))(
    lambda folder: _mha(folder, ElementToIntensityFunctionSlope="2", ElementToIntensityFunctionOffset="-10")
)
case("B47b", ".mha that rescales by nothing", FINE)(
    lambda folder: _mha(folder, ElementToIntensityFunctionSlope="1", ElementToIntensityFunctionOffset="0")
)
case("B48", ".mha whose axes stretch", refused("GeometryError"))(
    lambda folder: _mha(folder, TransformMatrix="2 0 0 0 1 0 0 0 1")
)
case("B49", ".mha with a fourth axis of length one", FINE)(
    lambda folder: _mha(
        folder,
        NDims="4",
        DimSize="32 28 22 1",
        ElementSpacing=f"{_text(np.array(SPACING_MM))} 1",
        Offset=f"{_text((LPS @ base().affine)[:3, 3])} 0",
        TransformMatrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
    )
)
