"""What a file is, by its first bytes; extensions lie."""

from __future__ import annotations

import zlib
from pathlib import Path

from medseg.imaging.nifti import nifti_version

HEAD_BYTES = 1024

_SIGNATURES = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "a program"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"<", "a web page or XML"),
    (b"{", "a JSON text"),
)


def sniff(path: Path) -> str:
    """'nifti', 'nrrd', 'mha', 'dicom' or 'zip'; '' for anything else.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        return sniff_bytes(file.read(HEAD_BYTES))


def sniff_bytes(head: bytes) -> str:
    """As `sniff`, for the first `HEAD_BYTES` of a file."""
    if head[:2] == b"\x1f\x8b":
        return "nifti" if nifti_version(_inflate(head)) else ""
    if nifti_version(head):
        return "nifti"
    if head[:7] == b"NRRD000":
        return "nrrd"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if _is_dicom(head):
        return "dicom"
    return "mha" if _is_metaimage(head) else ""


def describe(head: bytes) -> str:
    """What an unreadable file seems to be, for the text of an error."""
    if not head:
        return "empty"
    if head[344:347] == b"ni1" or head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):
        return "the header of an Analyze or .hdr/.img pair, which has no reliable orientation"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[:2] == b"\x1f\x8b":
        inner = _inflate(head)
        return f"gzip with {describe(inner)}" if inner else "a damaged gzip file"
    for magic, name in _SIGNATURES:
        if head.lstrip().startswith(magic):
            return name
    return "text" if head.isascii() and b"\0" not in head else "unknown binary data"


def _inflate(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""


def _is_metaimage(head: bytes) -> bool:
    text = head.lstrip()
    return text.startswith(b"ObjectType") or (text.startswith((b"NDims", b"Comment")) and b"DimSize" in text)


def _is_dicom(head: bytes) -> bool:
    if head[128:132] == b"DICM":
        return True
    # Without the preamble of part 10 a data set begins with an element of group 2 or 8 whose number is small.
    group, element = head[:2], head[2:4]
    return group in (b"\x02\0", b"\x08\0") and len(head) > 132 and element in _FIRST_ELEMENTS


_FIRST_ELEMENTS = tuple(bytes((n, 0)) for n in (0x00, 0x01, 0x02, 0x05, 0x08, 0x12, 0x16, 0x18))
