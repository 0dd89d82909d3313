"""What MetaImage and NRRD have in common: a text header, then raw or packed voxels.

The headers are parsed here (see `metaimage` and `nrrd`), the voxels are counted and decoded
here, and SimpleITK has to find the same geometry.
"""

from __future__ import annotations

import bz2
import hashlib
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import CorruptFileError, GeometryError, NotVolumeError, TruncatedFileError, UnknownFormatError
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.checks import check_finite, check_hounsfield, settle_padding
from medseg.imaging.grid import check_affine, coarse_findings, file_evidence, grids_differ
from medseg.imaging.naming import printable, scan_name
from medseg.imaging.stream import CHUNK
from medseg.imaging.values import rescale, trailing_finding
from medseg.imaging.volume import Array, Geometry, Volume, corner_distance

MAX_HEADER_BYTES = 1 << 18
SECOND_READER_TOLERANCE_MM = 0.01


@dataclass(frozen=True)
class TextHeader:
    """What both formats say, in one shape.

    Attributes:
        format: 'mha' or 'nrrd', also the extension by which SimpleITK reads it.
        size: bytes from the start of the file to the voxels.
        alone: the header without a mention of a separate file of voxels.
        shape, affine, dtype: of the volume (index -> RAS mm).
        encoding: 'raw', 'zlib' (also gzip) or 'bzip2'.
        data_file: name of a separate file of voxels, else empty.
        packed_size: bytes of the packed voxels, where the header says so.
    """

    format: str
    size: int
    alone: bytes
    shape: tuple[int, int, int]
    affine: Array
    dtype: np.dtype
    encoding: str
    data_file: str
    packed_size: int | None = None


Parser = Callable[[Path, bytes], TextHeader]


def read_headed(path: Path, parse: Parser, accept: Acceptance = NOTHING) -> Volume:
    """Read a CT whose text header `parse` understands.

    Raises:
        InputError: one of its branches, naming what is wrong.
    """
    with path.open("rb") as file:
        start = file.read(MAX_HEADER_BYTES)
        header = _header(path, start, parse)
        check_affine(path, header.affine)
        apart_mm = _ask_second_reader(path, header)
        content = start + file.read()
    packed = memoryview(content)[header.size :] if not header.data_file else _detached(path, header.data_file)
    voxels, extra = _decode(path, header, packed)
    hu = rescale(voxels, 1.0, 0.0)
    check_finite(path, hu)
    settle_padding(hu)
    findings = (
        trailing_finding(path, extra, voxels[..., 0].nbytes)
        + check_hounsfield(path, hu, accept)
        + coarse_findings(header.affine)
    )
    digest = hashlib.sha256(content)
    digest.update(packed if header.data_file else b"")
    geometry = Geometry(header.shape, header.affine)
    evidence = file_evidence(("medseg", "SimpleITK"), apart_mm, checksum=header.encoding != "raw")
    return Volume(hu, geometry, scan_name(path), findings, digest.hexdigest(), header.format, "", evidence)


def _header(path: Path, start: bytes, parse: Parser) -> TextHeader:
    try:
        return parse(path, start)
    except KeyError as error:
        raise CorruptFileError(path, f"its header lacks or misstates {error}.") from error
    except (ValueError, IndexError) as error:
        raise CorruptFileError(path, f"its header is not valid ({printable(str(error))}).") from error


def _ask_second_reader(path: Path, header: TextHeader) -> float:
    """How far apart the two readers put a corner of the volume, mm."""
    from medseg.imaging.itk import header_affine

    theirs, size = header_affine(path, header.alone, f".{header.format}")
    if size != header.shape:
        raise CorruptFileError(path, f"two readers find {header.shape} and {size} voxels in it.")
    if why := grids_differ(header.affine, theirs, header.shape, SECOND_READER_TOLERANCE_MM):
        raise GeometryError(path, f"its header is understood differently by SimpleITK: {why}.")
    return corner_distance(header.affine, theirs, header.shape)


def _detached(path: Path, name: str) -> memoryview:
    """The file of voxels beside a detached header; never one elsewhere."""
    if name != Path(name).name or "%" in name or name.upper().startswith("LIST") or name in (".", ".."):
        raise UnknownFormatError(path, "spreads its voxels over several files or another folder.")
    target = path.with_name(name)
    if not target.is_file():
        raise TruncatedFileError(path, f"its voxels ({printable(name)}) are not beside it.")
    if target.samefile(path):
        raise CorruptFileError(path, "names itself as the file of its voxels.")
    return memoryview(target.read_bytes())


def _decode(path: Path, header: TextHeader, packed: memoryview) -> tuple[Array, int]:
    """Voxels (i, j, k), and the number of bytes behind them."""
    wanted = math.prod(header.shape) * header.dtype.itemsize
    if header.packed_size is not None and header.packed_size > len(packed):
        raise TruncatedFileError(
            path, f"ends too early: {len(packed):,} of {header.packed_size:,} bytes of packed voxels."
        )
    if header.packed_size is not None and header.packed_size != len(packed):
        raise CorruptFileError(path, f"says {header.packed_size:,} bytes of packed voxels and holds {len(packed):,}.")
    found, behind = (packed, 0) if header.encoding == "raw" else _unpack(path, header.encoding, packed, wanted)
    if len(found) < wanted:
        raise TruncatedFileError(path, f"ends after {len(found):,} of {wanted:,} bytes of voxels.")
    voxels = np.frombuffer(found[:wanted], header.dtype).reshape(header.shape, order="F")
    return voxels, len(found) - wanted + behind


def _unpack(path: Path, encoding: str, packed: memoryview, wanted: int) -> tuple[memoryview, int]:
    """The unpacked voxels, and the number of bytes behind the packed ones that are no padding."""
    # Window bits 47: a zlib or a gzip wrapper, whichever is there; both end in a checksum.
    engine = bz2.BZ2Decompressor() if encoding == "bzip2" else zlib.decompressobj(wbits=47)
    try:
        out = engine.decompress(packed, wanted + CHUNK)
    except (zlib.error, OSError) as error:
        raise CorruptFileError(path, "the compressed voxels are damaged (checksum or structure).") from error
    if not engine.eof and len(out) >= wanted + CHUNK:
        raise CorruptFileError(path, "holds far more data than its header describes.")
    if not engine.eof:
        raise TruncatedFileError(path, "the compressed voxels end too early.")
    return memoryview(out), len(engine.unused_data.rstrip(b"\0"))


def header_line(content: bytes, start: int) -> tuple[str, int]:
    """The line of the header that begins at byte `start`, and where the next one begins."""
    stop = content.find(b"\n", start, MAX_HEADER_BYTES)
    if stop < 0:
        raise ValueError("it does not end")
    return content[start:stop].decode("utf-8", "replace").rstrip("\r"), stop + 1


def integers(text: str, count: int) -> tuple[int, ...]:
    """`count` lengths of axes."""
    found = tuple(int(part) for part in text.split())
    if len(found) != count or min(found) < 1:
        raise ValueError("its size is not valid")
    return found


def floats(text: str) -> tuple[float, ...]:
    """Numbers between blanks."""
    return tuple(float(part) for part in text.split())


def refuse(path: Path, condition: bool, why: str) -> None:
    """Refuse a variant of the format that is not read.

    Raises:
        NotVolumeError: when `condition` holds.
    """
    if condition:
        raise NotVolumeError(path, f"{why}; this is not read.")
